// The chart of one metric with its legend, whose figures follow the pointer or the arrow keys.

function curve(metric) {
  const legend = make("ul", { class: "legend" });
  const where = make("span", { class: "quiet" });
  const shaded = make("p", { class: "quiet small" }, "shaded: clients' mean ± standard deviation");
  const svg = draw("svg", { class: "koinon chart", role: "img", tabindex: "0" });
  const title = make("h3", {}, words(headingOf(metric)), " ", where);
  const root = make("figure", { class: "card curve" }, title, legend, shaded, svg);
  let shown = { lines: [], band: [] };
  let rounds = [];
  let x = null;
  let at = null; // the position in `rounds` that is read off, none for the last

  function readOff() {
    const round = rounds[at ?? rounds.length - 1];
    write(where, at === null ? "" : `in round ${round}`);
    const entries = shown.lines.map((line) => {
      const last = at === null ? finite(line.points).at(-1) : line.points.find(([number]) => number === round);
      return { line, value: number(last?.[1]) };
    });
    keep(legend, entries, ({ line }) => line.label, legendEntry);
    const cursor = svg.querySelector(".cursor");
    cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at === null) return;
    cursor.setAttribute("x1", x.place(round));
    cursor.setAttribute("x2", x.place(round));
  }

  function redraw() {
    const width = Math.floor(svg.clientWidth);
    if (width < 60) return; // not on the screen
    x = drawChart(svg, shown, width);
    readOff();
  }

  const move = (place) => {
    if (!x || !rounds.length) return;
    at = place === null ? null : Math.max(0, Math.min(rounds.length - 1, place));
    readOff();
  };
  const nearest = (event) => {
    const here = event.clientX - svg.getBoundingClientRect().left;
    return rounds.reduce((best, round, i) =>
      Math.abs(x.place(round) - here) < Math.abs(x.place(rounds[best]) - here) ? i : best, 0);
  };
  svg.addEventListener("pointermove", (event) => x && move(nearest(event)));
  svg.addEventListener("pointerleave", () => move(null));
  svg.addEventListener("blur", () => move(null));
  svg.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (event.key === "Escape") return move(null);
    if (!(event.key in steps)) return;
    event.preventDefault();
    move((at ?? rounds.length) + steps[event.key]);
    say(`Round ${rounds[at]}: ${[...legend.children].map((entry) => entry.textContent).join(", ")}`);
  });
  new ResizeObserver(redraw).observe(svg);

  return {
    root,
    show({ names, history }) {
      shown = linesOf(metric, names, history);
      rounds = [...new Set(shown.lines.flatMap((line) => line.points.map(([round]) => round)))].sort((a, b) => a - b);
      if (at !== null && at >= rounds.length) at = null;
      shaded.hidden = shown.band.length === 0;
      svg.setAttribute("aria-label", words(describe(metric, shown.lines)));
      redraw();
    },
  };
}

function legendEntry({ line }) {
  const sample = draw("svg", { class: "koinon chart sample", viewBox: "0 0 28 10", "aria-hidden": "true" });
  sample.append(draw("path", { class: `line ${line.colour}`, d: "M1 5L27 5", ...(line.dashes && { "stroke-dasharray": line.dashes }) }));
  const value = make("b");
  return { root: make("li", {}, sample, `${line.label} `, value), show: (entry) => write(value, entry.value) };
}
