// How figures are named and written. The same words and digits as in the reports: a test holds the two together.

const SOURCES = ["train_", "test_"];
const OVER_CLIENTS = { _mean: ", clients' mean", _worst: ", worst client", _spread: ", clients' spread" };
const NOT_FIGURES = new Set(["round", "cohort", "seconds", "refused", "lost", "void"]);

const withoutSource = (name) => {
  const source = SOURCES.find((source) => name.startsWith(source));
  return source ? name.slice(source.length) : name;
};
const overClients = (name) => Object.keys(OVER_CLIENTS).find((end) => name.endsWith(end)) ?? "";

function spelt(name) {
  const metric = withoutSource(name);
  const source = name.slice(0, name.length - metric.length);
  const before = source === "train_" ? "training " : source === "test_" ? "test " : "";
  const end = overClients(metric);
  const words = metric.slice(0, metric.length - end.length).replaceAll("_", " ");
  return before + ([...words].length <= 3 ? words.toUpperCase() : words) + (OVER_CLIENTS[end] ?? "");
}

function headingOf(metric) {
  const words = spelt(metric);
  return words.slice(0, 1).toUpperCase() + words.slice(1);
}

// The metrics behind the names of figures, the loss first: no prefix, nothing over clients.
function metricsOf(names) {
  const known = new Set(names);
  const own = names.filter((name) => {
    const end = overClients(name);
    return !end || !known.has(name.slice(0, name.length - end.length));
  });
  return [...new Set(own.map(withoutSource))].sort((a, b) => (b === "loss") - (a === "loss"));
}

function figureNames(history) {
  const names = new Set();
  for (const record of history)
    for (const name of Object.keys(record)) if (!NOT_FIGURES.has(name)) names.add(name);
  return [...names];
}

// About four digits; a dash for what is not there.
function number(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  const rounded = Number(value.toPrecision(4));
  if (size >= 1e6 || Math.abs(rounded) < 1e-4) {
    const [digits, power] = value.toExponential(3).split("e");
    const kept = size < 1 ? String(Number(digits)) : digits;
    return `${kept}e${power[0]}${power.slice(1).padStart(2, "0")}`;
  }
  if (size < 1e-3) return String(rounded);
  return value.toFixed(size < 1 ? 4 : Math.max(0, 3 - Math.floor(Math.log10(size))));
}

function seconds(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  if (value < 0.9995) return `${Number((1000 * value).toPrecision(3))} ms`;
  if (value < 60) return `${Number(value.toPrecision(3))} s`;
  const [minutes, rest] = [Math.floor(Math.round(value) / 60), Math.round(value) % 60];
  if (minutes < 60) return `${minutes} min ${rest} s`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1440)} days`;
}

// Whole seconds, for what counts up or down once a second.
const ticking = (value) => (typeof value === "number" && value < 60 ? `${Math.max(0, Math.round(value))} s` : seconds(value));

function bytes(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (power < units.length - 1 && value >= 999.5 * 1000 ** power) power += 1;
  return `${power ? Number((value / 1000 ** power).toPrecision(3)) : value} ${units[power]}`;
}

const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
