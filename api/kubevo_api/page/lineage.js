// Where the elite (or a chosen individual) comes from: its ancestors' fitness, back to the first
// generation. A step in which the elite was carried over has no fitness of its own.

import { Problem } from "./api.js";
import { Chart } from "./charts.js";
import { h } from "./dom.js";
import { count, fitness, plural } from "./format.js";
import { message, panel } from "./parts.js";

const REFRESH_MILLISECONDS = 5000;
const MARKED = 200;

/** Return the panel with a lineage of `run`. */
export function lineagePanel(run) {
  let traced = null;
  let timer = null;
  let items = [];
  let isLoading = false;
  const chart = new Chart({
    label: "Fitness of the ancestors",
    class: "chart-lineage",
    onClick: ({ customdata }) => customdata && run.choose(customdata[0], customdata[1]),
  });
  const back = h("button", {
    type: "button",
    text: "Back to the elite",
    hidden: true,
    on: { click: () => trace(null) },
  });
  const { element, body, note } = panel("Lineage of the elite", { end: [back], class: "wide" });
  const title = element.querySelector("h2");
  let none = message("No elite yet", "It is known after the first generation.", { small: true });
  none.classList.add("chart-lineage");
  body.append(none, chart.element);

  function trace(individual) {
    traced = individual;
    back.hidden = traced === null;
    title.textContent = traced
      ? `Lineage of #${traced.slot} of generation ${traced.generation}`
      : "Lineage of the elite";
    if (traced) element.scrollIntoView({ block: "nearest", behavior: "smooth" });
    load();
  }

  async function load() {
    clearTimeout(timer);
    timer = null;
    if (isLoading || run.history.length === 0) return show();
    isLoading = true;
    const wanted = traced;
    const path = wanted
      ? `/generations/${wanted.generation}/individuals/${wanted.slot}/lineage`
      : "/elite/lineage";
    try {
      const found = await run.get(path);
      items = found.items;
      note(
        `${plural(items.length - 1, "generation")} back${found.complete ? ", to the first" : ""}; coloured: the elite of its generation`,
      );
      show();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === undefined) throw error;
      if (error instanceof Problem) replace(message("No lineage", error.message, { small: true }));
    } finally {
      isLoading = false;
    }
    if (wanted !== traced) load();
  }

  function replace(other) {
    other.classList.add("chart-lineage");
    none.replaceWith(other);
    none = other;
    none.hidden = false;
    chart.element.hidden = true;
  }

  function show() {
    none.hidden = items.length > 0;
    chart.element.hidden = items.length === 0;
    if (!items.length) return;
    chart.draw((palette) =>
      drawn(
        [...items].reverse(),
        palette,
        traced ? `${traced.generation} ${traced.slot}` : "elite",
      ),
    );
    const [newest, oldest] = [items[0], items.at(-1)];
    chart.describe(
      `From generation ${oldest.generation} (fitness ${fitness(oldest.fitness)}) to ${newest.generation} (fitness ${fitness(newest.fitness)}); ${count(items.filter((i) => i.elite).length)} of ${count(items.length)} steps were the elite.`,
    );
  }

  run.addEventListener("trace", ({ detail }) => trace(detail));
  run.on("history", () => {
    // What was traced does not change any more.
    if (!traced) timer ??= setTimeout(load, items.length ? REFRESH_MILLISECONDS : 0);
  });
  load();
  return {
    element,
    close() {
      clearTimeout(timer);
      chart.close();
    },
  };
}

function drawn(items, palette, revision) {
  const isMarked = items.length <= MARKED;
  const of = (chosen) => ({
    x: chosen.map((i) => i.generation),
    y: chosen.map((i) => i.fitness),
    customdata: chosen.map((i) => [i.generation, i.slot]),
    hovertemplate: "generation %{x}, #%{customdata[1]}: %{y:.5~g}<extra></extra>",
  });
  return {
    traces: [
      {
        type: "scatter",
        mode: isMarked ? "lines+markers" : "lines",
        ...of(items),
        connectgaps: true,
        line: { color: palette["ink-3"], width: 1.5 },
        marker: { size: 5, color: palette["ink-2"] },
      },
      {
        type: "scatter",
        mode: "markers",
        ...of(items.filter((i) => i.elite && i.fitness !== null)),
        marker: { size: isMarked ? 8 : 4, color: palette.accent },
      },
    ],
    layout: {
      uirevision: revision,
      showlegend: false,
      xaxis: { title: { text: "Generation" }, ...(items.length < 7 ? { dtick: 1 } : {}) },
      yaxis: { title: { text: "Fitness in its population" } },
    },
  };
}
