// What the explorer draws of one generation. Pure: the service's columns in, a drawing out.

import { nothing } from "./charts.js";
import { fitness } from "./format.js";

/** Return the histogram of `bins` (edges, counts) as a drawing. */
export function histogramOf(bins, palette, revision) {
  const { edges, counts } = bins;
  if (!counts.length) return nothing("No individual has a fitness", palette);
  const few = Math.max(...counts) < 6 ? { dtick: 1 } : {};
  return {
    traces: [
      {
        type: "bar",
        x: counts.map((_, i) => (edges[i] + edges[i + 1]) / 2),
        width: counts.map((_, i) => edges[i + 1] - edges[i]),
        y: counts,
        customdata: counts.map((_, i) => `${fitness(edges[i])} to ${fitness(edges[i + 1])}`),
        hovertemplate: "%{y} with %{customdata}<extra></extra>",
        marker: {
          color: palette.accent,
          opacity: 0.85,
          line: { color: palette.surface, width: 1 },
        },
      },
    ],
    layout: {
      uirevision: revision,
      showlegend: false,
      bargap: 0,
      xaxis: { title: { text: "Fitness" } },
      yaxis: { title: { text: "Individuals" }, rangemode: "tozero", ...few },
    },
  };
}

/** Return individuals as points: `eliteSlot` and `selected` stand out. */
export function scatterOf(
  { slot, fitness: scores, frames },
  eliteSlot,
  selected,
  palette,
  revision,
) {
  if (!scores.some((score) => score !== null))
    return nothing("No individual has a fitness", palette);
  const points = (name, wanted, marker) => {
    const which = slot.map((s, i) => i).filter((i) => scores[i] !== null && wanted(slot[i]));
    return {
      type: "scatter",
      mode: "markers",
      name,
      marker,
      x: which.map((i) => scores[i]),
      y: which.map((i) => frames[i]),
      customdata: which.map((i) => slot[i]),
      hovertemplate: "#%{customdata}: fitness %{x:.5~g}, %{y:,} frames<extra></extra>",
    };
  };
  return {
    traces: [
      points("Individual", () => true, { color: palette["ink-2"], size: 6, opacity: 0.45 }),
      points("Elite", (s) => s === eliteSlot, { color: palette.accent, size: 11, symbol: "star" }),
      points("Chosen", (s) => s === selected, {
        color: "rgba(0,0,0,0)",
        size: 14,
        line: { color: palette.ink, width: 2 },
      }),
    ],
    layout: {
      uirevision: revision,
      showlegend: false,
      xaxis: { title: { text: "Fitness" } },
      yaxis: { title: { text: "Frames" }, rangemode: "tozero" },
    },
  };
}
