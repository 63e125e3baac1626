// One chart: draws its curves into the page's <svg>, and shows the values under the crosshair.

const SHAPES = {
  circle: "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
  square: "m-3 -3h6v6h-6z",
  triangle: "m0 -4l4 7h-8z",
  diamond: "m0 -4.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
  wedge: "m0 4l4 -7h-8z",
  speck: "m0 -2.8l2.8 2.8l-2.8 2.8l-2.8 -2.8z",
};
const SIGNS = { spike: "▲", skip: "✕", rewind: "◀", resume: "↻", extend: "+", correction: "~" };
const MOST_MARKERS = 120; // on one curve; more would hide it

class Chart {
  constructor(figure, spec, page) {
    this.figure = figure;
    this.spec = spec;
    this.page = page;
    this.log = spec.log;
    this.title = figure.querySelector("h3").textContent;
    this.plot = figure.querySelector(".plot");
    this.svg = figure.querySelector("svg");
    this.lines = spec.lines.filter((line) => line.y.some((y) => y !== null));
    for (const line of this.lines) line.chart = this;
  }

  /** An SVG element; its namespace is taken from the one that is there. */
  make(name, attributes, parent, text) {
    const element = document.createElementNS(this.svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  /** The whole width of the curves, in units of the axis. */
  extent() {
    const ahead = this.lines.filter((line) => line.look === "planned");
    return [0, this.page.last([...this.page.done, ...ahead]) || 1];
  }

  shown() {
    return this.lines.filter((line) => !this.page.hidden.has(this.page.keyOf(line)));
  }

  /** Indices of the points from `low` to `high` and one on each side. */
  within(line, low, high) {
    const xs = this.page.along(line);
    const end = firstNotBelow(xs, high);
    return [Math.max(0, firstNotBelow(xs, low) - 1), Math.min(xs.length, end + 1)];
  }

  /** The lowest and the highest visible value. */
  heights(low, high) {
    let bottom = Infinity;
    let top = -Infinity;
    const include = (y) => {
      if (y === null || (this.log && y <= 0)) return;
      bottom = Math.min(bottom, y);
      top = Math.max(top, y);
    };
    for (const line of this.shown()) {
      const [start, end] = this.within(line, low, high);
      for (let at = start; at < end; at += 1) include(line.y[at]);
    }
    for (const [y] of this.spec.rules) include(y);
    if (bottom > top) return this.log ? [0.1, 1] : [0, 1];
    if (this.log) {
      const room = Math.max(1.02, (top / bottom) ** 0.05);
      return [bottom / room, top * room];
    }
    const room = 0.06 * (top - bottom || Math.abs(top) || 1);
    const floor = this.spec.floor;
    return [floor === null ? bottom - room : Math.min(floor, bottom), top + room];
  }

  draw() {
    const [width, height] = this.page.paper ?? [this.plot.clientWidth, this.plot.clientHeight];
    if (!width || !height) return;
    const box = { left: 52, right: width - 12, top: 18, bottom: height - 26 };
    const [low, high] = this.page.view ?? this.extent();
    const [bottom, top] = this.heights(low, high);
    const across = (box.right - box.left) / (high - low);
    const scale = this.log ? Math.log : (y) => y;
    const up = (box.bottom - box.top) / (scale(top) - scale(bottom));
    Object.assign(this, { box, low, high });
    this.x = (value) => box.left + (value - low) * across;
    this.y = (value) => box.bottom - (scale(value) - scale(bottom)) * up;
    this.value = (pixel) => low + (pixel - box.left) / across;
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.drawAxes(low, high, bottom, top);
    // A nested <svg> cuts off what is outside of it.
    const room = 6; // for markers at the edges
    const wide = box.right - box.left + 2 * room;
    const inside = this.make("svg", { x: box.left - room, y: 0, width: wide, height,
      viewBox: `${box.left - room} 0 ${wide} ${height}` }, this.svg);
    this.drawBands(inside);
    for (const line of this.shown()) this.drawLine(line, inside);
    this.drawRulesAndMarks(inside);
    this.over = this.make("g", { class: "over" }, this.svg);
    this.point();
  }

  drawAxes(low, high, bottom, top) {
    const { box } = this;
    const rows = Math.max(3, Math.floor((box.bottom - box.top) / 42));
    const ticks = this.log ? logTicks(bottom, top, rows) : evenTicks(bottom, top, rows);
    for (const tick of ticks) {
      const y = this.y(tick).toFixed(1);
      this.make("line", { class: "grid", x1: box.left, x2: box.right, y1: y, y2: y }, this.svg);
      this.make("text", { class: "tick", x: box.left - 6, y, dy: "0.32em", "text-anchor": "end" },
        this.svg, tickText(this.spec.kind, tick));
    }
    const columns = Math.max(2, Math.floor((box.right - box.left) / 80));
    for (const tick of evenTicks(low, high, columns, this.page.axis)) {
      const x = this.x(tick);
      this.make("line", { class: "grid", x1: x, x2: x, y1: box.top, y2: box.bottom }, this.svg);
      const anchor = x > box.right - 16 ? "end" : x < box.left + 16 ? "start" : "middle";
      this.make("text", { class: "tick", x, y: box.bottom + 17, "text-anchor": anchor },
        this.svg, tickText(this.page.axis, tick));
    }
    this.make("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom },
      this.svg);
  }

  drawBands(inside) {
    const { box } = this;
    let taken = -Infinity; // where the last name ends
    this.spec.bands.forEach(([from, to, name], at) => {
      const left = Math.max(box.left, this.x(this.page.place(from, 0)));
      const right = Math.min(box.right, this.x(this.page.place(to, 0)));
      if (right <= left) return;
      this.make("rect", { class: `band band${at % 2}`, x: left, y: box.top,
        width: right - left, height: box.bottom - box.top }, inside);
      const width = 6.6 * name.length;
      const start = Math.max(box.left, taken + 8, (left + right - width) / 2);
      if (start > right || start + width > box.right + 4) return;
      taken = start + width;
      this.make("text", { class: "band-name", x: start, y: box.top - 6 }, inside, name);
    });
  }

  drawLine(line, inside) {
    const [start, end] = this.within(line, this.low, this.high);
    const group = this.make("g", { class: `line ${line.look} c-${line.color}` }, inside);
    const points = this.points(line, start, end);
    if (line.look !== "points" && line.look !== "dots") {
      let path = "";
      let pen = false;
      for (const [x, y] of points) {
        if (y === null) pen = false;
        else {
          // A horizontal line of no length is a dot, for a point without neighbours.
          path += pen ? `L${x} ${y}` : `M${x} ${y}h0`;
          pen = true;
        }
      }
      this.make("path", { d: path, "stroke-dasharray": line.dash }, group);
    }
    if (["points", "dots", "marked"].includes(line.look)) {
      const there = points.filter(([, y]) => y !== null);
      if (line.look === "marked" && there.length > MOST_MARKERS) return;
      const shape = SHAPES[line.marker];
      this.make("path", { class: "markers", d: there.map(([x, y]) => `M${x} ${y}${shape}`).join("") },
        group);
    }
  }

  /** Places of points in pixels; of each column of pixels only the lowest and the highest. */
  points(line, start, end) {
    const xs = this.page.along(line);
    const place = (at) => {
      const y = line.y[at];
      const seen = y !== null && !(this.log && y <= 0);
      return [this.x(xs[at]).toFixed(1), seen ? this.y(y).toFixed(1) : null];
    };
    const columns = Math.ceil(this.box.right - this.box.left);
    const kept = [];
    if (end - start <= 3 * columns) {
      for (let at = start; at < end; at += 1) kept.push(place(at));
      return kept;
    }
    for (let from = start; from < end; ) {
      const column = Math.floor(this.x(xs[from]));
      let [lowest, highest, to] = [from, from, from];
      for (; to < end && Math.floor(this.x(xs[to])) === column; to += 1) {
        const y = line.y[to];
        if (y === null) continue;
        if (line.y[lowest] === null || y < line.y[lowest]) lowest = to;
        if (line.y[highest] === null || y > line.y[highest]) highest = to;
      }
      kept.push(place(Math.min(lowest, highest)));
      if (lowest !== highest) kept.push(place(Math.max(lowest, highest)));
      from = to;
    }
    return kept;
  }

  drawRulesAndMarks(inside) {
    const { box } = this;
    for (const [value, name] of this.spec.rules) {
      const y = this.y(value);
      this.make("line", { class: "rule", x1: box.left, x2: box.right, y1: y, y2: y }, inside);
      this.make("text", { class: "rule-name", x: box.right - 4, y: y - 5, "text-anchor": "end" },
        inside, name);
    }
    for (const mark of this.spec.marks) {
      const x = this.x(this.page.place(mark.x, 0));
      if (x < box.left || x > box.right) continue;
      this.make("line", { class: `mark ${mark.kind}`, x1: x, x2: x, y1: box.top, y2: box.bottom },
        inside);
      this.make("text", { class: `sign ${mark.kind}`, x, y: box.top - 4, "text-anchor": "middle" },
        inside, SIGNS[mark.kind]);
    }
  }

  /** The point of a line that is nearest to a value of the axis; null: it has none. */
  nearest(line, value) {
    const xs = this.page.along(line);
    let right = firstNotBelow(xs, value);
    let left = right - 1;
    while (right < xs.length && line.y[right] === null) right += 1;
    while (left >= 0 && line.y[left] === null) left -= 1;
    if (left < 0 && right >= xs.length) return null;
    const at = left < 0 || (right < xs.length && xs[right] - value < value - xs[left]) ? right : left;
    return { at, x: xs[at], y: line.y[at], update: line.x[at] };
  }

  /** Put crosshair and values where the page's cursor is. */
  point() {
    const { cursor } = this.page;
    if (!this.over) return;
    this.over.replaceChildren();
    const seen = cursor !== null && cursor >= this.low && cursor <= this.high;
    if (seen) {
      const x = this.x(cursor);
      const { top, bottom } = this.box;
      this.make("line", { class: "crosshair", x1: x, x2: x, y1: top, y2: bottom }, this.over);
    }
    const shown = new Set(this.shown());
    for (const line of this.lines) {
      const found = this.nearest(line, cursor ?? Infinity);
      line.output.textContent = found && shown.has(line) ? written[this.spec.kind](found.y) : "";
      if (!seen || !found || !shown.has(line) || found.x < this.low || found.x > this.high) continue;
      this.make("circle", { class: `dot c-${line.color}`, cx: this.x(found.x), cy: this.y(found.y),
        r: 4.5 }, this.over);
    }
    this.where.textContent = cursor === null ? "latest" : this.page.placeText(cursor);
  }

  /** A point's value, and its position if that differs from the crosshair's. */
  words(line, found) {
    const value = written[this.spec.kind](found.y);
    const { cursor } = this.page;
    const far = Math.abs(found.x - cursor) > 0.004 * (this.high - this.low);
    return far ? `${value} at update ${written.updates(found.update)}` : value;
  }

  /** The values under the crosshair in a sentence. */
  sentence() {
    const { cursor } = this.page;
    const values = this.shown().map((line) => {
      const found = this.nearest(line, cursor);
      return found ? `${line.name} ${this.words(line, found)}` : "";
    });
    const near = 0.006 * (this.high - this.low);
    const events = this.spec.marks
      .filter((mark) => Math.abs(this.page.place(mark.x, 0) - cursor) <= near)
      .map((mark) => `update ${written.updates(mark.x)}: ${mark.words}`);
    return [this.page.placeText(cursor), ...values, ...events].filter(Boolean).join("; ");
  }
}
