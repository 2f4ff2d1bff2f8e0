// The top of an experiment: what it is, how it is, what to do next, and its numbers as tiles.

import { fill, h, say } from "./dom.js";
import {
  STATES,
  between,
  count,
  duration,
  fitness,
  interval,
  moment,
  plural,
  short,
} from "./format.js";
import { badge, progress, prose } from "./parts.js";
import { toCompare, toExperiment } from "./router.js";
import { actionButtons } from "./actions.js";
import { downloadsMenu } from "./downloads.js";

/** Return the head of `run`: title, state, actions and the sentence about what comes next. */
export function overview(run, mode) {
  const { detail } = run;
  const state = badge();
  const about = h("p", { class: "run-about" });
  const next = h("div", { class: "notice run-next", role: "status" });
  const downloads = downloadsMenu(run);
  const actions = actionButtons(run);
  const compare = h("a", {
    class: "button",
    href: toCompare([`${run.namespace}/${run.name}`]),
    text: "Compare",
  });
  const repeats = detail.repeats > 1 ? repeatChoice(run, detail.repeats) : null;
  const head = h(
    "div",
    { class: "run-head" },
    h(
      "div",
      {},
      h(
        "nav",
        { class: "crumbs", "aria-label": "Where this is" },
        h("a", { href: "#/", text: "Experiments" }),
        ` / ${run.namespace}`,
      ),
      h("div", { class: "run-title" }, h("h1", { text: run.name }), state.element),
      about,
    ),
    h("div", { class: "end" }, repeats, actions.element, compare, downloads.element),
  );

  let told = null;

  function update() {
    const { environment, network, spec, startTime } = run.detail;
    state.update(run.detail.state);
    const parts = [
      environment,
      network,
      `seed ${spec.seed}`,
      plural(run.detail.repeats, "repeat"),
      startTime ? `started ${moment(startTime)}` : "",
    ];
    say(about, parts.filter(Boolean).join(" · "));
    next.dataset.tone = STATES[run.detail.state]?.tone ?? "";
    const step = nextStep(run.detail, mode);
    if (step !== told) fill(next, prose(step)); // it is read aloud when it changes
    told = step;
    downloads.update();
    actions.update();
  }

  run.on("detail", update);
  run.on("history", () => downloads.update());
  update();
  return { element: h("div", {}, head, next), close: downloads.close };
}

function repeatChoice(run, repeats) {
  const choice = h(
    "select",
    {
      "aria-label": "Repeat",
      on: {
        change: () =>
          (location.hash = toExperiment(run.namespace, run.name, { repeat: choice.value })),
      },
    },
    Array.from({ length: repeats }, (_, i) => h("option", { value: i, text: `Repeat ${i}` })),
  );
  choice.value = run.repeat ?? 0;
  return choice;
}

const NEXT = {
  Pending: () => "It has been accepted and has not begun.",
  Waiting: () => "It waits for something it needs; the conditions below say for what.",
  Running: ({ best }) =>
    best
      ? `The best so far has ${fitness(best.fitness)}, found in generation ${best.generation}; it can be downloaded while the search goes on.`
      : "The first generation is being played.",
  Suspended: () => "It is paused and keeps everything: resume it to go on.",
  Succeeded: ({ best, finalTest }, mode) =>
    `Finished${finalTest ? `, with ${fitness(finalTest.mean)} in ${plural(finalTest.episodes, "held-out episode")}` : ""}. ${best ? `Download policy.py to play the best${mode === "local" ? ", or watch it with `kubevo play`" : ""}; a larger budget lets the search go on.` : ""}`,
  Failed: ({ reason }) =>
    reason === "AllEvaluationsFailed"
      ? "Every evaluation of the first generation failed: the failed episodes below say how. Mend the environment or its settings, and start it under another name."
      : "It failed; the conditions and the failed episodes below say why.",
  Interrupted: () => "What is finished is kept.",
};

function nextStep(detail, mode) {
  const text = NEXT[detail.state]?.(detail, mode) ?? "";
  // The service's own words say more wherever something is not as it should be.
  const isTold =
    ["Waiting", "Suspended", "Interrupted", "Failed", "Pending"].includes(detail.state) ||
    detail.reason === "Degraded";
  const told =
    isTold && detail.message
      ? `${capital(detail.message)}${/[.!?]$/.test(detail.message) ? "" : "."} `
      : "";
  return told + text;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Return the numbers of `run` as tiles, all there from the start, so that nothing moves. */
export function tiles(run) {
  const tile = (label) => {
    const value = h("dd", { class: "value", text: "–" });
    const note = h("dd", { class: "note", text: "\u00a0" });
    return {
      element: h("div", { class: "tile" }, h("dt", { text: label }), value, note),
      set: (v, n) => (say(value, v), say(note, n || "\u00a0")),
    };
  };
  const best = tile("Best");
  const elite = tile("Newest elite");
  const test = tile("Final test");
  const generation = tile("Generations");
  const frames = tile("Frames");
  const time = tile("Time");
  const bar = progress();
  generation.element.append(bar.element);

  function update() {
    const { detail } = run;
    const newest = run.history.newest();
    best.set(
      fitness(detail.best?.fitness),
      detail.best
        ? `generation ${count(detail.best.generation)}${detail.repeats > 1 ? `, repeat ${detail.best.repeat}` : ""}`
        : "",
    );
    const hasInterval = newest?.eliteLow != null && detail.repeats === 1;
    elite.set(
      fitness(detail.elite?.fitness),
      hasInterval ? interval([newest.eliteLow, newest.eliteHigh]) : "",
    );
    const { finalTest } = detail;
    test.set(
      fitness(finalTest?.mean),
      finalTest
        ? finalTest.ci95
          ? interval(finalTest.ci95)
          : plural(finalTest.episodes, "episode")
        : "after the end",
    );
    const done = detail.generation === null ? 0 : detail.generation + 1;
    generation.set(
      count(done),
      detail.generations ? `of ${count(detail.generations)}` : "no limit",
    );
    bar.update(detail.generations ? done / detail.generations : null);
    const isRunning = detail.state === "Running";
    const ran =
      Number(detail.status.progress?.runningSeconds) ||
      newest?.seconds ||
      between(detail.startTime, detail.completionTime);
    const left = run.history.secondsLeft(detail);
    const speed = isRunning ? detail.framesPerSecond : ran ? detail.frames / ran : null;
    frames.set(short(detail.frames), speed ? `${short(speed)} a second` : "");
    time.set(
      duration(ran),
      isRunning && left
        ? `${duration(left)} to go`
        : detail.completionTime
          ? `ended ${moment(detail.completionTime)}`
          : "running time",
    );
  }

  run.on("detail", update);
  run.on("history", update);
  update();
  return {
    element: h(
      "dl",
      { class: "tiles" },
      [best, elite, test, generation, frames, time].map((each) => each.element),
    ),
    close() {},
  };
}
