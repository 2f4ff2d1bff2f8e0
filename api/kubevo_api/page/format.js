// Numbers, times and states as people read them. Pure: values in, texts out.

const NONE = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

// Every state the service knows: what it is called, its tone in the style sheet, its sign.
export const STATES = {
  Pending: { tone: "wait", icon: "dots" },
  Waiting: { tone: "wait", icon: "dots" },
  Running: { tone: "live", icon: null },
  Suspended: { tone: "wait", icon: "pause" },
  Succeeded: { tone: "done", icon: "check" },
  Failed: { tone: "bad", icon: "cross" },
  Interrupted: { tone: "wait", icon: "halt" },
};

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** 12345 → 12,345 */
export function count(value) {
  return isNumber(value) ? whole.format(value).replace("-", "−") : NONE;
}

/** 1234567 → 1.235M: where the size matters, not the last digit. */
export function short(value) {
  if (isNumber(value) && Math.abs(value) < 1e5) return count(value);
  return isNumber(value) ? compact.format(value).replace("-", "−") : NONE;
}

/** A fitness: five significant digits, never an exponent where a person does not need one. */
export function fitness(value) {
  if (!isNumber(value)) return NONE;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e9 || size < 1e-4) return value.toExponential(2).replace("-", "−");
  const decimals = size >= 1000 ? 1 : size >= 10 ? 2 : size >= 0.1 ? 3 : 5;
  const text = new Intl.NumberFormat("en", { maximumFractionDigits: decimals }).format(value);
  return text.replace("-", "−");
}

/** [low, high] → "466.3 to 488.1" */
export function interval(pair) {
  return pair ? `${fitness(pair[0])} to ${fitness(pair[1])}` : NONE;
}

/** Seconds → "1 h 05 min", in at most two units. */
export function duration(seconds) {
  if (!isNumber(seconds)) return NONE;
  if (seconds < 1) return "< 1 s";
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${pad(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${pad(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function pad(number) {
  return String(number).padStart(2, "0");
}

/** Seconds between two RFC 3339 times; null when one is not known. */
export function between(start, end) {
  const from = Date.parse(start ?? "");
  const to = Date.parse(end ?? "");
  return Number.isNaN(from) || Number.isNaN(to) ? null : Math.max(0, (to - from) / 1000);
}

/** "3 min ago" */
export function ago(time, now = Date.now()) {
  const at = Date.parse(time ?? "");
  if (Number.isNaN(at)) return NONE;
  const s = Math.max(0, (now - at) / 1000);
  if (s < 5) return "now";
  if (s < 60) return `${Math.floor(s)} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}

/** A time in the reader's zone, to the second. */
export function moment(time) {
  const at = new Date(time ?? "");
  if (Number.isNaN(at.getTime())) return NONE;
  return at.toLocaleString("sv-SE");
}

/** The time of day in the reader's zone. */
export function clock(date = new Date()) {
  return date.toLocaleTimeString("sv-SE");
}

/** 35000 → "35 kB" */
export function bytes(value) {
  if (!isNumber(value)) return NONE;
  if (value < 1000) return `${value} B`;
  if (value < 1e6) return `${(value / 1e3).toFixed(0)} kB`;
  if (value < 1e9) return `${(value / 1e6).toFixed(1)} MB`;
  return `${(value / 1e9).toFixed(2)} GB`;
}

/** "1 repeat", "3 repeats" */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}
