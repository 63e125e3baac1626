// Numbers formatted for people (as reports/formats.py does), and the ticks of an axis.

const written = {
  loss: (x) => (x >= 10 ? x.toFixed(2) : x >= 0.1 ? x.toFixed(3) : short(x)),
  lr: (x) => {
    if (x === 0) return "0";
    const [digits, exponent] = x.toExponential(2).split("e");
    return `${Number(digits)}e${Number(exponent)}`;
  },
  norm: (x) => {
    if (x !== 0 && (x < 0.01 || x >= 1000)) return written.lr(x);
    return x < 10 ? x.toFixed(2) : short(x);
  },
  count: (x) => {
    if (Math.abs(x) < 9999.5) return grouped(x);
    const units = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];
    const [scale, letter] = units.find(([size]) => Math.abs(x) >= 0.9995 * size);
    const value = x / scale;
    return Number(value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)) + letter;
  },
  share: (x) => `${(100 * x).toFixed(1)}%`,
  updates: (x) => grouped(x),
  tokens: (x) => written.count(x),
  seconds: (x) => {
    if (x < 0.95) return `${x.toFixed(1)}s`;
    const whole = Math.round(x);
    if (whole < 60) return `${whole}s`;
    if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
    const minutes = Math.round(x / 60);
    if (minutes < 1440) return `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
    const hours = Math.round(x / 3600);
    return `${Math.floor(hours / 24)}d ${two(hours % 24)}h`;
  },
};

const two = (n) => String(n).padStart(2, "0");
const short = (x) => String(Number(x.toPrecision(3)));
const grouped = (x) => Math.round(x).toString().replace(/\B(?=(\d{3})+$)/g, ",");

/** A tick's value: the format of its axis, without trailing zeros. */
function tickText(kind, value) {
  if (kind === "share") return `${Number((100 * value).toFixed(1))}%`;
  if (kind === "seconds") return written.seconds(value).replace(/ 00[smh]$/, "");
  if (kind === "lr") return written.lr(value);
  if (kind === "updates" || kind === "tokens" || kind === "count") return written.count(value);
  return value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e4)
    ? written.lr(value)
    : String(Number(value.toPrecision(6)));
}

const CLOCK_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200];

/** Round numbers from `low` to `high`, about `most` of them. */
function evenTicks(low, high, most, kind) {
  const rough = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].find((digit) => digit * power >= rough * 0.999) * power;
  if (kind === "lr") return written.lr(value);
  if (kind === "updates" || kind === "tokens") step = Math.max(1, step);
  if (kind === "seconds" && rough > 0.5) {
    step = CLOCK_STEPS.find((size) => size >= rough) ?? 86400 * Math.ceil(rough / 86400);
  }
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high * (1 + 1e-12); n += 1) {
    ticks.push(Number((n * step).toPrecision(12)));
  }
  return ticks;
}

// Digits of ticks in each decade; the first row with few enough is taken.
const DIGITS = [
  [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8],
  [1, 1.5, 2, 3, 4, 6],
  [1, 2, 3, 5],
  [1, 2, 5],
  [1, 3],
  [1],
];

/** The same on a logarithmic axis: the fewer decades, the more ticks of each. */
function logTicks(low, high, most) {
  const every = Math.ceil(Math.log10(high / low) / most);
  const last = Math.ceil(Math.log10(high));
  let ticks = [];
  for (const digits of DIGITS) {
    ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= last; power += 1) {
      if (power % every) continue;
      for (const digit of digits) {
        const tick = Number((digit * 10 ** power).toPrecision(3));
        if (tick >= low && tick <= high) ticks.push(tick);
      }
    }
    if (ticks.length <= most + 2) break;
  }
  return ticks.length < 2 ? evenTicks(low, high, most) : ticks;
}

/** The first place in ascending numbers that is not below `value`. */
function firstNotBelow(numbers, value) {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Interpolate linearly at `x`; beyond the last point the value rises by `each`. */
function between(xs, ys, x, each) {
  const last = xs.length - 1;
  if (x >= xs[last]) return ys[last] + (x - xs[last]) * each;
  const at = Math.max(1, firstNotBelow(xs, x));
  const width = xs[at] - xs[at - 1];
  const share = width > 0 ? Math.max(0, x - xs[at - 1]) / width : 0;
  return ys[at - 1] + share * (ys[at] - ys[at - 1]);
}
