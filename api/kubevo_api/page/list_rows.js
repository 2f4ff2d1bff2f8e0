// The columns of the list: how each is named, ordered and drawn. A row is made once and updated in
// place, so that nothing moves, and nothing loses the focus, when numbers change.

import { h, say } from "./dom.js";
import { ago, count, duration, fitness, moment, short } from "./format.js";
import { badge, progress } from "./parts.js";
import { toExperiment } from "./router.js";

// One collator: localeCompare makes a new one each time, which a thousand rows feel.
const text = new Intl.Collator("en", { numeric: true }).compare;
// What is not known comes last in both orders.
const number = (value) => (a, b) => {
  const [x, y] = [value(a), value(b)];
  if (x == null || y == null) return { unknown: (x == null) - (y == null) };
  return x - y;
};

const pickColumn = {
  id: "pick",
  title: "Compare",
  width: "40px",
  class: "pick",
  cell: (summary, pick, isPicked) => {
    const box = h("input", { type: "checkbox", "aria-label": `Compare ${summary.name}` });
    box.checked = isPicked;
    const element = h("span", {}, box);
    box.addEventListener("change", () => {
      element.closest("tr").classList.toggle("is-picked", box.checked);
      pick(box.checked);
    });
    return {
      element,
      update: () => element.closest("tr")?.classList.toggle("is-picked", box.checked),
    };
  },
};

function textCell(value, titleOf = null) {
  return () => {
    const element = h("span");
    return {
      element,
      update(summary) {
        say(element, value(summary));
        if (titleOf) element.title = titleOf(summary);
      },
    };
  };
}

function nameCell(isNamespaced) {
  return (summary) => {
    const href = toExperiment(summary.namespace, summary.name);
    const link = h("a", { class: "name truncate", href, title: summary.name, text: summary.name });
    const sub = isNamespaced ? h("span", { class: "sub truncate", text: summary.namespace }) : null;
    return { element: h("div", { class: "truncate" }, link, sub), update() {} };
  };
}

function stateCell() {
  const shown = badge();
  return {
    element: shown.element,
    update(summary) {
      shown.update(summary.state);
      shown.element.title = summary.message || summary.reason;
    },
  };
}

function generationCell() {
  const label = h("span");
  const bar = progress();
  return {
    element: h("div", {}, label, bar.element),
    update({ generation, generations }) {
      const done = generation === null ? 0 : generation + 1;
      say(
        label,
        generations
          ? `${count(done)} of ${count(generations)}`
          : generation === null
            ? "–"
            : count(done),
      );
      bar.update(generations ? done / generations : null);
    },
  };
}

export const COLUMNS = [
  pickColumn,
  {
    id: "name",
    title: "Name",
    width: "22%",
    class: "title",
    cell: nameCell(false),
    compare: (a, b) => text(a.name, b.name) || text(a.namespace, b.namespace),
  },
  {
    id: "state",
    title: "State",
    width: "130px",
    class: "state",
    cell: stateCell,
    compare: (a, b) => text(a.state, b.state),
  },
  {
    id: "environment",
    title: "Environment",
    width: "18%",
    class: "environment truncate",
    cell: textCell(
      (s) => s.environment,
      (s) => `${s.environment} · ${s.network}`,
    ),
    compare: (a, b) => text(a.environment, b.environment),
  },
  {
    id: "generation",
    title: "Generations",
    width: "124px",
    class: "generation",
    cell: generationCell,
    compare: number((s) => s.generation),
  },
  {
    id: "best",
    title: "Best",
    width: "90px",
    class: "best number",
    label: "Best",
    cell: textCell((s) => fitness(s.best?.fitness)),
    compare: number((s) => s.best?.fitness),
    isNumber: true,
  },
  {
    id: "elite",
    title: "Elite",
    width: "90px",
    class: "number minor",
    cell: textCell((s) => fitness(s.elite?.fitness)),
    compare: number((s) => s.elite?.fitness),
    isNumber: true,
  },
  {
    id: "frames",
    title: "Frames",
    width: "86px",
    class: "number",
    label: "Frames",
    cell: textCell(
      (s) => short(s.frames),
      (s) => count(s.frames),
    ),
    compare: number((s) => s.frames),
    isNumber: true,
  },
  {
    id: "eta",
    title: "Time left",
    width: "104px",
    class: "number minor",
    cell: textCell((s) => (s.state === "Running" ? duration(s.etaSeconds) : "–")),
    compare: number((s) => s.etaSeconds),
    isNumber: true,
  },
  {
    id: "evaluators",
    title: "Evaluators",
    width: "100px",
    class: "number minor",
    onlyIn: "cluster",
    cell: textCell((s) =>
      s.evaluators ? `${s.evaluators.ready} of ${s.evaluators.desired}` : "–",
    ),
    compare: number((s) => s.evaluators?.ready),
    isNumber: true,
  },
  {
    id: "updated",
    title: "Updated",
    width: "104px",
    class: "number",
    label: "Updated",
    cell: textCell(
      (s) => ago(s.updated ?? s.completionTime ?? s.startTime),
      (s) => moment(s.updated ?? s.completionTime ?? s.startTime),
    ),
    compare: (a, b) => text(changedAt(a), changedAt(b)),
    isNumber: true,
  },
];

function changedAt(summary) {
  return summary.updated ?? summary.completionTime ?? summary.startTime ?? summary.created ?? "";
}

/** Return the columns that mean something here: names alone do not tell experiments apart in a cluster. */
export function columnsFor(mode) {
  const shown = COLUMNS.filter((column) => !column.onlyIn || column.onlyIn === mode);
  return shown.map((column) =>
    column.id === "name" ? { ...column, cell: nameCell(mode === "cluster") } : column,
  );
}

/** Return a comparison for `id` or `-id`; names decide what is equal. */
export function byColumn(order) {
  const sign = order.startsWith("-") ? -1 : 1;
  const { compare } = COLUMNS.find((column) => column.id === order.replace("-", ""));
  const byName = COLUMNS.find((column) => column.id === "name").compare;
  return (a, b) => {
    const found = compare(a, b);
    if (typeof found === "object") return found.unknown || byName(a, b);
    return sign * found || byName(a, b);
  };
}

/** Return a row; `pick(isPicked)` is told when it is chosen for a comparison. */
export function rowOf(columns, summary, pick, isPicked) {
  const cells = columns.map((column) => column.cell(summary, pick, isPicked));
  const element = h(
    "tr",
    { role: "row" },
    columns.map((column, i) =>
      h(
        "td",
        { role: "cell", class: column.class, data: column.label ? { label: column.label } : {} },
        cells[i].element,
      ),
    ),
  );
  return { element, update: (next) => cells.forEach((cell) => cell.update(next)) };
}
