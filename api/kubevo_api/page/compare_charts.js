// What the comparison draws. Pure: the service's answer in, a drawing out.

import { colours, plain, through } from "./charts.js";

// More experiments than colours are told apart by the line.
const DASHES = ["solid", "dash", "dot"];

/** Return the colour and dash of the `index`th experiment. */
export function style(index) {
  const { series } = colours();
  return {
    colour: series[index % series.length],
    dash: DASHES[Math.floor(index / series.length) % DASHES.length],
  };
}

/** Return the curves of `items` with their intervals as a drawing. */
export function curvesOf(items, palette, ids) {
  const traces = items.flatMap(({ id, curve }, i) => {
    const { colour, dash } = style(i);
    const silent = {
      type: "scatter",
      mode: "lines",
      x: curve.x,
      hoverinfo: "skip",
      showlegend: false,
      line: { width: 0, shape: "hv" },
      legendgroup: id,
    };
    const hasRibbon = curve.low.some((value) => value !== null);
    const ribbon = hasRibbon
      ? [
          { ...silent, y: curve.low },
          { ...silent, y: curve.high, fill: "tonexty", fillcolor: through(colour, 0.15) },
        ]
      : [];
    const line = {
      type: "scatter",
      mode: curve.x.length > 1 ? "lines" : "markers",
      name: plain(id),
      legendgroup: id,
      x: curve.x,
      y: curve.iqm,
      line: { color: colour, dash, width: 2, shape: "hv" },
      marker: { color: colour },
      hovertemplate: "%{y:.5~g}",
    };
    return [...ribbon, line];
  });
  return {
    traces,
    layout: {
      uirevision: ids.join(),
      hovermode: "x unified",
      xaxis: { title: { text: "Generation" }, rangemode: "tozero" },
      yaxis: { title: { text: "Best so far" } },
    },
  };
}

/** Return the results of `items` with their intervals as a drawing. */
export function resultsOf(items, palette) {
  const shown = items.map((item, i) => ({ ...item, ...style(i) }));
  const names = shown.map((item) => plain(item.id));
  return {
    traces: [
      {
        type: "scatter",
        mode: "markers",
        x: shown.flatMap((i) => i.result.values),
        y: shown.flatMap((i) => i.result.values.map(() => plain(i.id))),
        marker: { symbol: "line-ns-open", size: 10, color: palette["ink-3"] },
        hovertemplate: "%{x:.5~g}<extra></extra>",
      },
      ...shown.map(({ id, result, colour }) => ({
        type: "scatter",
        mode: "markers",
        x: [result.iqm],
        y: [plain(id)],
        marker: { size: 11, color: colour },
        error_x: {
          type: "data",
          symmetric: false,
          array: [result.high === null ? 0 : result.high - result.iqm],
          arrayminus: [result.low === null ? 0 : result.iqm - result.low],
          color: colour,
          thickness: 2,
          width: 5,
        },
        hovertemplate: "%{y}: %{x:.5~g}<extra></extra>",
      })),
    ],
    layout: {
      showlegend: false,
      uirevision: names.join(),
      yaxis: {
        type: "category",
        autorange: "reversed",
        categoryorder: "array",
        categoryarray: names,
        ticksuffix: "  ",
      },
      xaxis: { title: { text: "Fitness" } },
    },
  };
}
