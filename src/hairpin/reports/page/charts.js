// All charts of the page together: one axis, one visible range, one crosshair.

class Charts {
  constructor(data) {
    this.runs = data.runs;
    this.axis = "updates"; // or "tokens", "seconds"
    this.view = null; // from, to on that axis; null: the whole run
    this.cursor = null;
    this.hidden = new Set();
    this.caches = { updates: new Map(), tokens: new Map(), seconds: new Map() };
    this.said = document.getElementById("said");
    this.charts = data.charts.map((spec) => new Chart(document.getElementById(spec.name), spec, this));
    const lines = this.charts.flatMap((chart) => chart.lines);
    this.done = lines.filter((line) => line.look !== "planned");
    this.restore();
    for (const chart of this.charts) this.equip(chart);
    this.controls();
    new ResizeObserver(() => this.redraw()).observe(document.querySelector(".charts"));
    addEventListener("pagehide", () => this.keep());
    // Paper is about this wide; scripts cannot find out the exact width.
    addEventListener("beforeprint", () => { this.paper = [680, 264]; this.draw(); });
    addEventListener("afterprint", () => { this.paper = null; this.draw(); });
    this.draw();
  }

  /** Convert an update of a run to a position on the axis, and back. */
  place(update, run) {
    if (this.axis === "updates") return update;
    const { clock } = this.runs[run];
    return between(clock.x, clock[this.axis], update, clock[`${this.axis}_each`]);
  }

  updateAt(value, run) {
    if (this.axis === "updates") return value;
    const { clock } = this.runs[run];
    const each = clock[`${this.axis}_each`];
    return between(clock[this.axis], clock.x, value, each > 0 ? 1 / each : 0);
  }

  along(line) {
    if (this.axis === "updates") return line.x;
    const cache = this.caches[this.axis];
    if (!cache.has(line)) cache.set(line, line.x.map((update) => this.place(update, line.run)));
    return cache.get(line);
  }

  /** The end of the longest of some lines. */
  last(lines) {
    return lines.reduce((most, line) => Math.max(most, this.along(line).at(-1)), 0);
  }

  placeText(value) {
    const words = written[this.axis](value);
    if (this.runs.length > 1) return this.axis === "updates" ? `update ${words}` : words;
    const update = this.updateAt(value, 0);
    const { clock } = this.runs[0];
    const [tokens, seconds] = ["tokens", "seconds"].map((axis) =>
      written[axis](between(clock.x, clock[axis], update, clock[`${axis}_each`])));
    return `update ${written.updates(update)} · ${tokens} ${this.counted} · ${seconds}`;
  }

  /** The key of lines that are switched on and off together: a run in all charts, or one line. */
  keyOf(line) {
    if (this.runs.length > 1) return `run ${line.run}`;
    return `${line.chart.spec.name} ${line.name}`;
  }

  draw() {
    for (const chart of this.charts) chart.draw();
    const whole = document.getElementById("whole");
    whole.disabled = this.view === null;
    for (const chart of this.charts) chart.all.disabled = this.view === null;
  }

  redraw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  point(value) {
    this.cursor = value;
    for (const chart of this.charts) chart.point();
  }

  zoom(low, high) {
    const full = Math.max(...this.charts.map((chart) => chart.extent()[1]));
    const least = full * 1e-4;
    if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
    if (low < 0) [low, high] = [0, high - low];
    if (high > full) [low, high] = [Math.max(0, low - (high - full)), full];
    this.view = low <= 0 && high >= full ? null : [low, high];
    this.redraw();
  }

  whole() {
    this.view = null;
    this.redraw();
  }

  /** Make the visible range `factor` times as wide around a position. */
  widen(chart, factor, around) {
    const middle = around ?? (chart.low + chart.high) / 2;
    const low = middle - (middle - chart.low) * factor;
    this.zoom(low, low + (chart.high - chart.low) * factor);
  }

  setAxis(axis) {
    const updates = this.view?.map((value) => this.updateAt(value, 0));
    this.axis = axis;
    this.view = updates?.map((update) => this.place(update, 0)) ?? null;
    this.point(null);
    this.redraw();
  }

  controls() {
    for (const radio of document.querySelectorAll("input[name=axis]")) {
      radio.checked = radio.value === this.axis;
      if (radio.value === "tokens") this.counted = radio.parentElement.textContent.trim();
      radio.addEventListener("change", () => this.setAxis(radio.value));
    }
    document.getElementById("whole").addEventListener("click", () => this.whole());
    for (const element of document.querySelectorAll(".controls, .hint")) element.hidden = false;
  }

  /** Buttons, legend, pointer and keys of a chart. */
  equip(chart) {
    const tools = add("div", "tools", chart.figure.querySelector("figcaption"));
    const button = (text, label, act) => {
      const made = add("button", "", tools, text);
      made.type = "button";
      made.setAttribute("aria-label", `${label}: ${chart.title}`);
      made.title = label;
      made.addEventListener("click", act);
      return made;
    };
    button("+", "Zoom in", () => this.widen(chart, 0.5, this.cursor));
    button("−", "Zoom out", () => this.widen(chart, 2, this.cursor));
    chart.all = button("All", "Whole run", () => this.whole());
    chart.toggle = button("Log", "Logarithmic scale", () => this.switchScale(chart));
    chart.toggle.setAttribute("aria-pressed", chart.log);
    this.legend(chart);
    const { plot } = chart;
    plot.tabIndex = 0;
    plot.id = `${chart.spec.name}-plot`;
    plot.setAttribute("role", "application");
    plot.setAttribute("aria-roledescription", "chart");
    plot.setAttribute("aria-label", `${chart.title}, ${chart.spec.unit}. Arrow keys read values.`);
    listen(this, chart);
    plot.addEventListener("keydown", (event) => this.key(chart, event));
  }

  legend(chart) {
    const list = add("ul", "legend", null);
    chart.plot.before(list);
    for (const line of chart.lines) {
      const button = add("button", "", add("li", "", list));
      const key = this.keyOf(line);
      button.type = "button";
      button.dataset.key = key;
      button.setAttribute("aria-pressed", !this.hidden.has(key));
      const sample = chart.make("svg", { viewBox: "0 0 26 12", "aria-hidden": "true",
        class: `line ${line.look} c-${line.color}` }, button);
      if (line.look !== "points" && line.look !== "dots") {
        chart.make("path", { d: "M1 6h24", "stroke-dasharray": line.dash }, sample);
      }
      if (["points", "dots", "marked"].includes(line.look)) {
        chart.make("path", { class: "markers", d: `M13 6${SHAPES[line.marker]}` }, sample);
      }
      add("span", "", button, line.name);
      line.output = add("b", "", button);
      button.addEventListener("click", () => this.switchLine(key));
    }
    for (const kind of new Set(chart.spec.marks.map((mark) => mark.kind))) {
      add("li", `key ${kind}`, list, `${SIGNS[kind]} ${kind}`);
    }
    chart.where = add("li", "where", list);
  }

  switchLine(key) {
    if (!this.hidden.delete(key)) this.hidden.add(key);
    for (const button of document.querySelectorAll(".legend button")) {
      button.setAttribute("aria-pressed", !this.hidden.has(button.dataset.key));
    }
    this.redraw();
  }

  switchScale(chart) {
    chart.log = !chart.log;
    chart.toggle.setAttribute("aria-pressed", chart.log);
    chart.draw();
  }

  key(chart, event) {
    const act = {
      ArrowLeft: () => this.step(chart, -1, event.shiftKey),
      ArrowRight: () => this.step(chart, 1, event.shiftKey),
      Home: () => this.say(chart, chart.low),
      End: () => this.say(chart, chart.high),
      "+": () => this.widen(chart, 0.5, this.cursor),
      "=": () => this.widen(chart, 0.5, this.cursor),
      "-": () => this.widen(chart, 2, this.cursor),
      0: () => this.whole(),
      l: () => this.switchScale(chart),
      L: () => this.switchScale(chart),
      Escape: () => this.point(null),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  /** Move the crosshair to the next point of the curve with the most; without `fine`, further. */
  step(chart, direction, fine) {
    const lines = chart.shown();
    if (!lines.length) return;
    const longest = lines.reduce((a, b) => (b.x.length > a.x.length ? b : a));
    const xs = this.along(longest);
    const from = this.cursor ?? (direction > 0 ? chart.low - 1e-9 : chart.high + 1e-9);
    const least = fine ? 0 : 0.01 * (chart.high - chart.low);
    let at;
    if (direction > 0) {
      at = firstNotBelow(xs, from + least);
      if (xs[at] <= from) at += 1;
    } else {
      at = firstNotBelow(xs, from - least + 1e-9) - 1;
      if (xs[at] >= from) at -= 1;
    }
    this.say(chart, xs[Math.min(xs.length - 1, Math.max(0, at))]);
  }

  /** Move the crosshair, scroll its position into view, and announce the values. */
  say(chart, value) {
    if (this.view && (value < chart.low || value > chart.high)) {
      const half = (chart.high - chart.low) / 2;
      this.zoom(value - half, value + half);
      this.draw();
    }
    this.point(value);
    this.said.textContent = chart.sentence();
  }

  /** Keep a reader's choices when the page reloads. */
  keep() {
    const scales = Object.fromEntries(this.charts.map((chart) => [chart.spec.name, chart.log]));
    const { axis, view } = this;
    remember("charts", { axis, view, scales, hidden: [...this.hidden] });
  }

  restore() {
    const kept = recall("charts");
    if (!kept || !(kept.axis in this.caches)) return;
    this.axis = kept.axis;
    this.view = kept.view;
    this.hidden = new Set(kept.hidden);
    for (const chart of this.charts) chart.log = kept.scales[chart.spec.name] ?? chart.log;
  }
}

/** Zooming by dragging, wheel and double click; the crosshair follows the pointer. */
function listen(page, chart) {
  const { plot } = chart;
  let from = null;
  const at = (event) => {
    const pixel = event.clientX - plot.getBoundingClientRect().left;
    const inside = Math.min(chart.box.right, Math.max(chart.box.left, pixel));
    return [inside, chart.value(inside)];
  };
  const follow = (value) => page.point(page.axis === "updates" ? Math.round(value) : value);
  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    // A finger moves the crosshair and scrolls the page; it zooms by the buttons.
    if (event.pointerType === "touch") return void follow(at(event)[1]);
    from = at(event);
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", (event) => {
    const [pixel, value] = at(event);
    follow(value);
    if (!from) return;
    chart.make("rect", { class: "chosen", x: Math.min(pixel, from[0]), y: chart.box.top,
      width: Math.abs(pixel - from[0]), height: chart.box.bottom - chart.box.top }, chart.over);
  });
  plot.addEventListener("pointerup", (event) => {
    if (!from) return;
    const [pixel, value] = at(event);
    const values = [from[1], value].sort((a, b) => a - b);
    if (Math.abs(pixel - from[0]) > 5) page.zoom(...values);
    from = null;
  });
  plot.addEventListener("pointercancel", () => { from = null; });
  plot.addEventListener("pointerleave", (event) => {
    if (!from && event.pointerType !== "touch") page.point(null);
  });
  plot.addEventListener("dblclick", () => page.whole());
  plot.addEventListener("wheel", (event) => {
    // The wheel scrolls the page until a chart is clicked.
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== plot) return;
    if (event.deltaY > 0 && page.view === null) return;
    event.preventDefault();
    page.widen(chart, 1.0015 ** event.deltaY, at(event)[1]);
  }, { passive: false });
}

function add(name, kind, parent, text) {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  if (text !== undefined) element.textContent = text;
  parent?.append(element);
  return element;
}

function remember(name, value) {
  try {
    sessionStorage.setItem(`hairpin ${name} ${location.pathname}`, JSON.stringify(value));
  } catch { /* browsers may have no storage for local files */ }
}

function recall(name) {
  try {
    return JSON.parse(sessionStorage.getItem(`hairpin ${name} ${location.pathname}`));
  } catch {
    return null;
  }
}

const strip = document.querySelector(".samples:has(.first)");
if (strip) strip.scrollLeft = strip.scrollWidth; // the last sample, next to the first
const data = document.getElementById("charts");
if (data) new Charts(JSON.parse(data.textContent));
