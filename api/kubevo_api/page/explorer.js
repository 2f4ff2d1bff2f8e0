// One generation at a time: its scores as a histogram, each individual as a point (fitness by
// frames), the best of it as a table; a slider goes through the generations or follows the newest.

import { Problem } from "./api.js";
import { Chart } from "./charts.js";
import { fill, h, icon } from "./dom.js";
import { histogramOf, scatterOf } from "./explorer_charts.js";
import { count, fitness, plural } from "./format.js";
import { individualBox } from "./individual.js";
import { failure, message, panel, table } from "./parts.js";

const BINS = 40;
const POINTS = 2000;
const TOP = 8;
const SLIDING_MILLISECONDS = 90;

/** Return the panel that goes through the generations of `run`. */
export function explorerPanel(run) {
  const explorer = new Explorer(run);
  return { element: explorer.element, close: () => explorer.close() };
}

class Explorer {
  #aborter = null;
  #timer = null;
  #isBusy = false;
  #generation = null;
  #shown = null;

  constructor(run) {
    this.run = run;
    this.histogram = new Chart({
      label: "Histogram of the population's fitness",
      class: "chart-part",
    });
    this.scatter = new Chart({
      label: "Individuals by fitness and frames",
      class: "chart-part",
      onClick: (point) => this.#select(point.customdata),
    });
    this.#build();
    run.on("history", () => this.#grown());
    run.on("choose", ({ generation, slot }) => this.#goTo(generation, slot));
    this.#grown();
  }

  close() {
    this.#aborter?.abort();
    clearTimeout(this.#timer);
    this.histogram.close();
    this.scatter.close();
  }

  #build() {
    this.range = h("input", {
      type: "range",
      min: 0,
      max: 0,
      step: 1,
      value: 0,
      "aria-label": "Generation",
      on: { input: () => this.#goTo(this.range.valueAsNumber) },
    });
    this.number = h("input", {
      type: "number",
      min: 0,
      step: 1,
      "aria-label": "Generation, as a number",
      on: { change: () => this.#goTo(this.number.valueAsNumber) },
    });
    const step = (by, label, sign) =>
      h(
        "button",
        {
          type: "button",
          class: "icon-only",
          "aria-label": label,
          title: label,
          on: { click: () => this.#goTo((this.#generation ?? 0) + by) },
        },
        icon(sign),
      );
    this.follow = h("input", {
      type: "checkbox",
      checked: true,
      on: { change: () => this.#grown() },
    });
    const slider = h(
      "div",
      { class: "slider" },
      step(-1, "Previous generation", "left"),
      this.range,
      step(1, "Next generation", "right"),
      this.number,
      h("label", { class: "follow" }, this.follow, "Newest"),
    );
    const { element, body } = panel("Generation", { end: [slider], flush: true });
    element.querySelector(".end").style.flex = "1 1 300px";
    this.element = element;
    this.facts = h("div", { class: "generation-facts", "aria-live": "off" });
    this.top = h("div");
    this.box = h("div", { "aria-live": "polite" });
    this.explorer = h(
      "div",
      { class: "explorer" },
      h("div", {}, h("h3", { text: "Scores" }), this.histogram.element),
      h("div", {}, h("h3", { text: "Individuals: fitness and length" }), this.scatter.element),
      h("div", {}, h("h3", { text: "Best of this generation" }), this.top),
    );
    this.none = message("Nothing to look into yet", "The first generation is still being played.", {
      small: true,
    });
    this.problem = h("div", { hidden: true });
    body.append(this.none, this.problem, this.facts, this.explorer, this.box);
  }

  #grown() {
    const { first, last, length } = this.run.history;
    const isEmpty = length === 0;
    this.none.hidden = !isEmpty;
    for (const part of [this.facts, this.explorer]) part.hidden = isEmpty;
    this.range.disabled = this.number.disabled = isEmpty;
    if (isEmpty) return;
    for (const input of [this.range, this.number]) {
      input.min = first;
      input.max = last;
    }
    if (this.follow.checked) this.#show(last);
    else if (this.#generation === null) this.#show(last);
  }

  #goTo(generation, slot = null) {
    const { first, last } = this.run.history;
    if (last === null || Number.isNaN(generation)) return;
    const wanted = Math.min(last, Math.max(first, Math.round(generation)));
    this.follow.checked = wanted === last && slot === null;
    this.#show(wanted, slot);
    if (slot !== null) this.element.scrollIntoView({ block: "start", behavior: "smooth" });
  }

  // While one is being loaded, only the last wish counts: a slider has many on its way.
  #show(generation, slot = null) {
    this.#generation = generation;
    this.range.value = this.number.value = generation;
    this.range.setAttribute("aria-valuetext", `generation ${generation}`);
    this.wanted = { generation, slot };
    if (this.#isBusy || this.#timer) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = null;
        this.#load();
      },
      this.#shown === null ? 0 : SLIDING_MILLISECONDS,
    );
  }

  async #load() {
    const { generation, slot } = this.wanted;
    this.#isBusy = true;
    this.#aborter = new AbortController();
    const of = (path, query) =>
      this.run.get(`/generations/${generation}${path}`, query, this.#aborter.signal);
    try {
      const [facts, bins, scores, best] = await Promise.all([
        of(""),
        of("/histogram", { bins: BINS }),
        of("/scores", { points: POINTS }),
        of("/population", { sort: "-fitness", limit: TOP }).catch(expected),
      ]);
      this.#shown = { generation, facts, bins, scores, best };
      this.#showProblem(null);
      this.#draw();
      if (slot !== null) this.#select(slot);
      else if (this.selected?.generation !== generation) this.#select(null);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === undefined) throw error;
      this.#showProblem(error);
    } finally {
      this.#isBusy = false;
    }
    if (this.wanted.generation !== generation) this.#show(this.wanted.generation, this.wanted.slot);
  }

  #showProblem(error) {
    this.problem.hidden = error === null;
    this.facts.hidden = this.explorer.hidden = error !== null;
    if (error)
      fill(
        this.problem,
        failure(error, () => this.#load(), { small: true }),
      );
  }

  #draw() {
    const { generation, facts, bins, scores, best } = this.#shown;
    const { max, mean, median, min } = facts.fitness;
    const pair = (label, value) => h("span", {}, `${label} `, h("b", { text: value }));
    fill(
      this.facts,
      pair("Generation", count(generation)),
      pair("individuals", count(facts.populationSize)),
      pair("maximum", fitness(max)),
      pair("mean", fitness(mean)),
      pair("median", fitness(median)),
      pair("minimum", fitness(min)),
      pair("failed", count(facts.failed)),
      scores.columns.slot.length < facts.populationSize
        ? h("span", {
            text: `every ${Math.round(facts.populationSize / scores.columns.slot.length)}th individual is drawn`,
          })
        : null,
    );
    const revision = String(this.run.repeat);
    this.histogram.draw((palette) => histogramOf(bins, palette, revision));
    this.histogram.describe(
      `Generation ${generation}: ${plural(facts.populationSize, "individual")} from ${fitness(min)} to ${fitness(max)}, median ${fitness(median)}; ${count(facts.failed)} failed.`,
    );
    this.#drawScatter();
    this.#drawTop(best);
  }

  #drawScatter() {
    const { scores, facts } = this.#shown;
    const selected =
      this.selected?.generation === this.#shown.generation ? this.selected.slot : null;
    this.scatter.draw((palette) =>
      scatterOf(scores.columns, facts.eliteSlot, selected, palette, String(this.run.repeat)),
    );
  }

  #drawTop(best) {
    if (best instanceof Problem) {
      fill(
        this.top,
        message(best.status === 410 ? "Genomes pruned" : best.title, best.message, { small: true }),
      );
      return;
    }
    const rows = best.items.map((each) => {
      const show = h("button", {
        type: "button",
        class: "link",
        text: `#${each.slot}`,
        "aria-label": `Show individual ${each.slot}`,
        on: { click: () => this.#select(each.slot) },
      });
      const isPicked =
        this.selected?.generation === this.#shown.generation && this.selected.slot === each.slot;
      return h(
        "tr",
        { class: isPicked ? "is-picked" : null, data: { slot: each.slot } },
        h("td", {}, show),
        [
          fitness(each.fitness),
          count(each.frames),
          count(each.mutations),
          each.parent < 0 ? "–" : `#${each.parent}`,
        ].map((text) => h("td", { class: "number", text })),
      );
    });
    const columns = [
      ["Slot"],
      ["Fitness", true],
      ["Frames", true],
      ["Mutations", true],
      ["Parent", true],
    ];
    const focused = this.top.contains(document.activeElement)
      ? document.activeElement.getAttribute("aria-label")
      : null;
    fill(this.top, table(columns, rows, { class: "top-table", label: "Best of this generation" }));
    if (focused) this.top.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
  }

  async #select(slot) {
    const generation = this.#shown.generation;
    this.selected = slot === null ? null : { generation, slot };
    if (slot !== null) this.follow.checked = false;
    for (const row of this.top.querySelectorAll("tr[data-slot]"))
      row.classList.toggle("is-picked", row.dataset.slot === String(slot));
    this.#drawScatter();
    if (slot === null) fill(this.box);
    else await individualBox(this.box, this.run, generation, slot, () => this.#select(null));
  }
}

function expected(error) {
  if (error instanceof Problem) return error;
  throw error;
}
