// What happened, newest first: improvements and tests of the past from the history, what the
// conditions say and since when, then what the stream tells while the page is open.

import { h } from "./dom.js";
import { clock, count, duration, fitness, moment } from "./format.js";
import { message, panel } from "./parts.js";

const KEPT = 120;
const PAST = 40;
const TOLD = {
  Running: "True",
  Ready: "False",
  EvaluatorsReady: "False",
  Degraded: "True",
  Suspended: "True",
  Succeeded: "True",
  Failed: "True",
};

/** Return the panel with the events of `run`. */
export function timelinePanel(run) {
  const { element, body, note } = panel("Events", { flush: true });
  const list = h("ol", { class: "timeline" });
  const none = message("", "Nothing has happened yet.", { small: true });
  const box = h(
    "div",
    { class: "timeline-box", tabindex: 0, role: "group", "aria-label": "Events, newest first" },
    none,
    list,
  );
  body.append(box);
  let best = null;

  function add(when, text) {
    list.prepend(h("li", {}, h("span", { class: "when", text: when }), h("span", { text })));
    while (list.children.length > KEPT) list.lastChild.remove();
    none.hidden = true;
  }

  function past() {
    for (const { when, text } of improvements(run.history.columns).slice(-PAST)) add(when, text);
    best = run.history.newest()?.best ?? null;
    const final = run.tests.find((test) => test.purpose === "final");
    if (final) add("end", `Final test: ${fitness(final.mean)} in ${final.episodes} episodes`);
    for (const { when, text } of statements(run.detail.status.conditions ?? [])) add(when, text);
  }

  run.on("history", (row) => {
    if (!row) return;
    const isBetter = row.best !== null && row.best !== best;
    best = row.best;
    const failed = row.failed ? `, ${count(row.failed)} failed` : "";
    add(
      clock(),
      isBetter
        ? `New best ${fitness(row.best)} in generation ${count(row.generation)}${failed}`
        : `Generation ${count(row.generation)}: elite ${fitness(row.elite)}${failed}`,
    );
  });
  run.on("note", ({ text }) => add(clock(), text));
  past();
  none.hidden = list.children.length > 0;
  note(list.children.length ? "time of day, or since the start" : "");
  return { element, close() {} };
}

// The conditions that a person wants to know of, oldest first.
function statements(conditions) {
  const isTold = ({ type, status }) => TOLD[type] === status;
  const time = ({ lastTransitionTime }) => lastTransitionTime ?? "";
  return conditions
    .filter(isTold)
    .sort((a, b) => time(a).localeCompare(time(b)))
    .map((condition) => ({
      when: condition.lastTransitionTime ? moment(condition.lastTransitionTime) : "now",
      text: `${condition.status === "True" ? "" : "Not "}${condition.type}: ${condition.reason}`,
    }));
}

// Each generation whose best is better than all before it.
function improvements({ best = [], bestGeneration = [], seconds = [] }) {
  const found = [];
  let known = -Infinity;
  best.forEach((value, i) => {
    if (value === null || value <= known) return;
    known = value;
    found.push({
      when: `+${duration(seconds[i])}`,
      text: `New best ${fitness(value)} in generation ${count(bestGeneration[i])}`,
    });
  });
  return found;
}
