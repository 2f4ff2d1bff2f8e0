// Experiments side by side: curves of the best so far as interquartile means with their intervals,
// and what each ended with.

import { get } from "./api.js";
import { Chart } from "./charts.js";
import { curvesOf, resultsOf, style } from "./compare_charts.js";
import { fill, h, icon } from "./dom.js";
import { count, fitness, interval, plural } from "./format.js";
import { failure, message, panel, skeleton, table } from "./parts.js";
import { toCompare, toExperiment } from "./router.js";
import { onChange } from "./theme.js";

const POINTS = 300;
const MOST = 20;
const KNOWN_AT_MOST = 1000;

/** Show the comparison that `route` names in `view`. */
export function showCompare(view, route) {
  const ids = [
    ...new Set((route.query.get("ids") ?? "").split(",").filter((id) => /^[^/]+\/[^/]+$/.test(id))),
  ].slice(0, MOST);
  const aborter = new AbortController();
  const curves = new Chart({ label: "Best so far over generations", class: "chart-curve" });
  const results = new Chart({ label: "Results with their intervals", class: "chart-part" });
  const chips = h("div", { class: "chips" });
  const body = h("div", { class: "board" });
  let items = [];
  let confidence = 0.95;
  document.title = "Compare · kubevo";
  fill(
    view,
    h(
      "div",
      { class: "view-head" },
      h("h1", { text: "Compare" }),
      h("span", { class: "total", text: ids.length ? plural(ids.length, "experiment") : "" }),
    ),
    chips,
    body,
  );

  function go(wanted) {
    location.hash = toCompare(wanted);
  }

  function showChips() {
    fill(
      chips,
      ids.map((id, i) => chip(id, i, () => go(ids.filter((other) => other !== id)))),
      adder(ids, go, aborter.signal),
    );
  }

  async function load() {
    if (!ids.length) {
      const list = h("a", { class: "button", href: "#/", text: "Choose from the list" });
      const text =
        "Add one above, or tick some in the list. With repeats, a curve is the interquartile mean of them, with a 95 % interval.";
      fill(
        body,
        h("div", { class: "panel" }, message("Nothing to compare yet", text, { actions: [list] })),
      );
      return;
    }
    fill(body, h("div", { class: "panel panel-body" }, skeleton(420)));
    try {
      ({ items, confidence } = await get(
        "/compare",
        { ids: ids.join(","), points: POINTS },
        aborter.signal,
      ));
    } catch (error) {
      if (error.name !== "AbortError")
        fill(body, h("div", { class: "panel" }, failure(error, load)));
      return;
    }
    show();
  }

  function show() {
    const percent = `${Math.round(confidence * 100)} % interval`;
    const curvePart = panel("Best so far", {
      note: `interquartile mean of the repeats, ${percent}`,
    });
    const hasCurves = items.some((item) => item.curve.x.length);
    curvePart.body.append(
      hasCurves
        ? curves.element
        : message(
            "No generation is finished yet",
            "The curves begin with the first ones: reload then.",
            { small: true },
          ),
    );
    const resultPart = panel("Results", { note: `interquartile mean and ${percent}`, flush: true });
    resultPart.body.append(
      h("div", { class: "panel-body" }, results.element),
      h("div", { class: "scroll" }, resultTable(items)),
    );
    fill(body, mixed(items), curvePart.element, resultPart.element);
    curves.draw((palette) => curvesOf(items, palette, ids));
    curves.describe(items.map((item) => `${item.id}: ${fitness(item.result.iqm)}`).join("; "));
    results.plot.style.height = `${70 + 34 * items.length}px`;
    results.draw((palette) => resultsOf(items, palette));
    results.describe(
      items
        .map((item) => `${item.id}: ${fitness(item.result.iqm)}, ${interval(known(item.result))}`)
        .join("; "),
    );
  }

  const stop = onChange(() => {
    showChips();
    if (items.length) show();
  });
  showChips();
  load();
  return () => {
    aborter.abort();
    stop();
    curves.close();
    results.close();
  };
}

function swatch(index) {
  const element = h("span", { class: "swatch", "aria-hidden": "true" });
  element.style.background = style(index).colour;
  return element;
}

function chip(id, index, remove) {
  const [namespace, name] = id.split("/");
  const button = h(
    "button",
    { type: "button", "aria-label": `Remove ${id}`, on: { click: remove } },
    icon("close"),
  );
  return h(
    "span",
    { class: "chip" },
    swatch(index),
    h("a", { href: toExperiment(namespace, name), text: name, title: id }),
    button,
  );
}

// A field that knows the names there are; they are loaded when somebody goes there.
function adder(ids, go, signal) {
  const names = h("datalist", { id: "known-experiments" });
  const input = h("input", {
    list: "known-experiments",
    placeholder: "Add namespace/name",
    "aria-label": "Add an experiment",
    disabled: ids.length >= MOST,
  });
  input.addEventListener("focus", async () => {
    if (names.children.length) return;
    try {
      const { items } = await get("/experiments", { limit: KNOWN_AT_MOST }, signal);
      fill(
        names,
        items
          .map((item) => `${item.namespace}/${item.name}`)
          .filter((id) => !ids.includes(id))
          .map((id) => h("option", { value: id })),
      );
    } catch (error) {
      if (error.name !== "AbortError" && error.status === undefined) throw error; // the field works without
    }
  });
  input.addEventListener("change", () => {
    const id = input.value.trim();
    if (/^[^/\s,]+\/[^/\s,]+$/.test(id) && !ids.includes(id)) go([...ids, id]);
  });
  return [input, names];
}

function mixed(items) {
  const environments = new Set(items.map((item) => item.environment));
  if (environments.size < 2) return null;
  return h("p", {
    class: "notice",
    data: { tone: "wait" },
    text: `These are of ${environments.size} environments (${[...environments].join(", ")}): their fitness has different units.`,
  });
}

function known({ low, high }) {
  return low === null ? null : [low, high];
}

function resultTable(items) {
  const rows = items.map((item, i) => {
    const [namespace, name] = item.id.split("/");
    const { result } = item;
    return h(
      "tr",
      {},
      h(
        "td",
        {},
        h(
          "span",
          { class: "swatch-cell" },
          swatch(i),
          h("a", { href: toExperiment(namespace, name), text: item.id }),
        ),
      ),
      h("td", { text: item.environment }),
      [count(item.repeats), fitness(result.iqm), interval(known(result))].map((text) =>
        h("td", { class: "number", text }),
      ),
      h("td", {
        text: result.values.length
          ? result.of === "final test"
            ? "final test"
            : "best so far"
          : "–",
      }),
      h("td", { class: "number", text: result.values.map(fitness).join(", ") }),
    );
  });
  return table(
    [
      ["Experiment"],
      ["Environment"],
      ["Repeats", true],
      ["IQM", true],
      ["Interval", true],
      ["Of"],
      ["Values", true],
    ],
    rows,
    { label: "Results" },
  );
}
