// One chart over rounds, drawn at the width it is shown in so that its letters keep their size on a phone.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
const ROOM = { top: 10, right: 12, bottom: 36 };
const LETTER = 7.3; // pixels of a digit at 12 px, generously
const DRAWN = 400; // points of a line: more than the picture can show
const TOUCHES = 1e-9;

function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Ticks at 1, 2 or 5 times a power of ten, and a map from figures to pixels.
function axis(values, start, end, wanted, whole) {
  let [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  const flat = high - low <= TOUCHES * Math.max(Math.abs(low), Math.abs(high), TOUCHES);
  const room = flat ? (whole ? 0.5 : 0.05 * Math.abs(low) || 1) : whole ? 0 : 0.06 * (high - low);
  [low, high] = [low - room, high + room];
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  if (whole) step = Math.max(1, step);
  const ticks = [];
  for (let i = Math.ceil(low / step - TOUCHES); i * step <= high + TOUCHES * step; i += 1) ticks.push(i * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + TOUCHES));
  const plain = Math.max(Math.abs(low), Math.abs(high)) < 1e5 && step >= 1e-4;
  return {
    start, end, ticks,
    place: (value) => start + ((value - low) / (high - low)) * (end - start),
    label: (tick) => (plain ? (tick + 0).toFixed(digits) : String(Number(tick.toPrecision(3)))),
  };
}

// At most DRAWN points: the lowest and the highest of each stretch, and both ends.
function thin(points) {
  if (points.length <= DRAWN) return points;
  const kept = new Set([0, points.length - 1]);
  const stretch = Math.ceil((2 * points.length) / (DRAWN - 2));
  for (let from = 0; from < points.length; from += stretch) {
    let [low, high] = [from, from];
    for (let i = from; i < Math.min(from + stretch, points.length); i += 1) {
      if (!(points[i][1] >= points[low][1])) low = i;
      if (!(points[i][1] <= points[high][1])) high = i;
    }
    kept.add(low).add(high);
  }
  return [...kept].sort((a, b) => a - b).map((i) => points[i]);
}

const finite = (points) => points.filter(([, value]) => Number.isFinite(value));
const column = (history, name) =>
  history.filter((record) => name in record).map((record) => [record.round, record[name] ?? NaN]);

// The lines of a metric, and the band of its clients where they differ; the colours of the reports.
function linesOf(metric, names, history) {
  const spread = `${metric}_spread`;
  const several = metric !== "loss" && names.includes(spread) && column(history, spread).some(([, value]) => value);
  const all = [
    [`train_${metric}`, "training", "second", "2 4"],
    [metric, "held-out", "first", null],
    [`${metric}_worst`, "worst client", "third", "6 4"],
    [`test_${metric}`, "server's test", "fourth", "8 3 2 3"],
  ];
  const shown = all.filter(([name]) => names.includes(name) && (several || name !== `${metric}_worst`));
  const lines = shown.map(([name, label, colour, dashes]) => ({ label, colour, dashes, points: column(history, name) }));
  if (!several) return { lines, band: [] };
  const spreads = new Map(column(history, spread));
  const around = finite(column(history, `${metric}_mean`)).filter(([round]) => Number.isFinite(spreads.get(round)));
  const band = around.map(([round, mean]) => [round, mean - spreads.get(round), mean + spreads.get(round)]);
  return { lines, band };
}

function pieces(points) {
  const found = [[]];
  for (const point of points)
    if (Number.isFinite(point[1])) found.at(-1).push(point);
    else if (found.at(-1).length) found.push([]);
  return found.filter((piece) => piece.length);
}

const path = (points, x, y) => points.map(([a, b]) => `${x.place(a).toFixed(1)} ${y.place(b).toFixed(1)}`).join("L");

function drawLine({ colour, dashes, points }, x, y) {
  const parts = pieces(thin(points));
  const joined = parts.filter((piece) => piece.length > 1).map((piece) => `M${path(piece, x, y)}`);
  const line = draw("path", { class: `line ${colour}`, d: joined.join("") });
  if (dashes) line.setAttribute("stroke-dasharray", dashes);
  const lonely = parts.filter((piece) => piece.length === 1).map(([[a, b]]) =>
    draw("circle", { class: `${colour} halo`, cx: x.place(a), cy: y.place(b), r: 3.5 }));
  return [line, ...lonely];
}

function drawGrid(x, y) {
  const marks = y.ticks.flatMap((tick) => [
    draw("line", { class: "grid", x1: x.start, x2: x.end, y1: y.place(tick), y2: y.place(tick) }),
    draw("text", { x: x.start - 6, y: y.place(tick) + 4, "text-anchor": "end" }, y.label(tick)),
  ]);
  const below = x.ticks.map((tick) =>
    draw("text", { x: x.place(tick), y: y.start + 17, "text-anchor": "middle" }, x.label(tick)));
  return [...marks, ...below, draw("text", { x: x.end, y: y.start + 31, "text-anchor": "end" }, "round")];
}

// Fill `svg` with a chart `width` pixels wide; returns its axis of rounds.
function drawChart(svg, { lines, band }, width) {
  const points = lines.flatMap((line) => finite(thin(line.points)));
  const edges = thin(band);
  const heights = [...points.map(([, value]) => value), ...edges.flatMap(([, low, high]) => [low, high])];
  const bottom = HEIGHT - ROOM.bottom;
  const y = axis(heights, bottom, ROOM.top, 4, false);
  const left = 12 + LETTER * Math.max(...y.ticks.map((tick) => y.label(tick).length));
  const x = axis(points.map(([round]) => round), left, width - ROOM.right, width < 360 ? 4 : 6, true);
  const shape = [...edges.map(([a, low]) => [a, low]), ...edges.toReversed().map(([a, , high]) => [a, high])];
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.replaceChildren(
    ...drawGrid(x, y),
    draw("path", { class: "band first", d: shape.length ? `M${path(shape, x, y)}Z` : "" }),
    ...lines.flatMap((line) => drawLine(line, x, y)),
    draw("line", { class: "grid cursor", x1: 0, x2: 0, y1: ROOM.top, y2: bottom, visibility: "hidden" }),
  );
  return x;
}

// What a chart shows, for a reader who cannot see it.
function describe(metric, lines) {
  const said = lines.map((line) => [line.label, finite(line.points)]).filter(([, points]) => points.length)
    .map(([label, points]) => `${label}: ${number(points[0][1])} in round ${points[0][0]}, ` +
      `${number(points.at(-1)[1])} in round ${points.at(-1)[0]}`);
  return `${headingOf(metric)} over rounds. ${said.join("; ") || "No figures"}.`;
}
