// The learning curve: best, elite with its interval, and the population's maximum, mean and median,
// over generations or frames; held-out tests as points with error bars.

import { Chart, nothing, through } from "./charts.js";
import { count, fitness } from "./format.js";
import { message, panel, segments } from "./parts.js";

// Few points are easier to see as points.
const MARKED = 40;
const AXES = { generation: "Generation", frames: "Frames" };

/** Return the panel with the learning curve of `run`. */
export function curvePanel(run) {
  let x = "generation";
  const chart = new Chart({ label: "Learning curve", class: "chart-curve", onZoom: zoomed });
  const choice = segments(
    "Horizontal axis",
    Object.entries({ generation: "Generations", frames: "Frames" }),
    x,
    (value) => {
      x = value;
      run.history.unzoom();
      draw();
    },
  );
  const { element, body, note } = panel("Learning curve", { end: [choice], class: "wide" });
  const none = message(
    "No generation is finished yet",
    "The curve begins with the first one, by itself.",
    { small: true },
  );
  none.classList.add("chart-curve"); // as high as what will stand there
  body.append(none, chart.element);

  async function zoomed(change) {
    const [from, to] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    try {
      if (change["xaxis.autorange"]) run.history.unzoom();
      else if (x !== "generation" || from === undefined || !(await run.history.zoom(from, to)))
        return;
    } catch (error) {
      if (error.name === "AbortError" || error.status !== undefined) return; // the overview stays
      throw error;
    }
    draw();
  }

  function draw() {
    const { history } = run;
    none.hidden = history.length > 0;
    chart.element.hidden = history.length === 0;
    if (!history.length) return;
    const each = history.isThinned
      ? Math.round((history.last - history.first + 1) / history.length)
      : 1;
    note(each > 1 ? `a point is ${count(each)} generations; zoom in for all` : "");
    if (!history.columns.max.some((value) => value !== null)) {
      chart.draw((palette) =>
        nothing("Every evaluation has failed: there is no fitness to draw", palette),
      );
      return;
    }
    chart.draw((palette) => ({
      traces: traces(history.shown(), run.tests, x, palette),
      layout: {
        uirevision: `${run.repeat} ${x}`,
        hovermode: "x unified",
        xaxis: { title: { text: AXES[x] }, rangemode: "tozero", ...whole(x, history) },
        yaxis: { title: { text: "Fitness" } },
      },
    }));
    chart.describe(inWords(history.newest()));
  }

  run.on("history", draw);
  run.on("tests", draw);
  draw();
  return { element, close: () => chart.close() };
}

// Half a generation is none.
function whole(axis, history) {
  return axis === "generation" && history.last < 6 ? { dtick: 1 } : {};
}

function inWords(row) {
  return (
    `After generation ${row.generation}: best ${fitness(row.best)}, elite ${fitness(row.elite)}, ` +
    `population from ${fitness(row.min)} to ${fitness(row.max)}, mean ${fitness(row.mean)}, median ${fitness(row.median)}.`
  );
}

function traces(columns, tests, axis, palette) {
  const x = columns[axis];
  const mode = x.length <= MARKED ? "lines+markers" : "lines";
  const line = (name, values, colour, width, more = {}) => ({
    type: "scatter",
    mode,
    name,
    x,
    y: values,
    connectgaps: false,
    line: { color: colour, width, ...more.line },
    marker: { color: colour, size: 4 },
    hovertemplate: "%{y:.5~g}",
    ...more.trace,
  });
  const silent = {
    type: "scatter",
    mode: "lines",
    x,
    hoverinfo: "skip",
    showlegend: false,
    line: { width: 0 },
  };
  return [
    { ...silent, y: columns.eliteLow },
    { ...silent, y: columns.eliteHigh, fill: "tonexty", fillcolor: through(palette.accent, 0.16) },
    line("Maximum", columns.max, through(palette["ink-3"], 0.75), 1),
    line("Mean", columns.mean, palette["ink-2"], 1.5),
    line("Median", columns.median, palette["ink-2"], 1.5, { line: { dash: "dot" } }),
    line("Elite, 95 %", columns.elite, palette.accent, 2),
    line("Best so far", columns.best, palette.ink, 2, { line: { shape: "hv" } }),
    ...testTraces(columns, tests, axis, palette),
  ];
}

function testTraces(columns, tests, axis, palette) {
  const known = tests.filter((test) => test.mean !== null);
  if (!known.length) return [];
  const place = (generation) => {
    const index = columns.generation.findIndex((g) => g >= generation);
    return columns[axis].at(index < 0 ? -1 : index);
  };
  return [
    {
      type: "scatter",
      mode: "markers",
      name: "Held-out",
      x: known.map((test) => (axis === "generation" ? test.generation : place(test.generation))),
      y: known.map((test) => test.mean),
      error_y: {
        type: "data",
        symmetric: false,
        thickness: 1.2,
        width: 3,
        color: palette.wait,
        array: known.map(({ ci95, mean }) => (ci95 ? ci95[1] - mean : 0)),
        arrayminus: known.map(({ ci95, mean }) => (ci95 ? mean - ci95[0] : 0)),
      },
      marker: { symbol: "diamond", size: 8, color: palette.wait },
      hovertemplate: "%{y:.5~g}",
    },
  ];
}
