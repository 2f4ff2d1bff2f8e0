// Who plays and how much there is to play: evaluators, throughput, evaluations, the checkpoint.

import { h, say } from "./dom.js";
import { ago, bytes, count, duration, moment, plural, short } from "./format.js";
import { panel, progress } from "./parts.js";

/** Return the panel about the work of `run`. */
export function fleetPanel(run, mode) {
  const { element, body } = panel("Evaluators and work");
  const bar = progress();
  const list = h("dl", { class: "facts" });
  const rows = new Map();
  const row = (label) => {
    const value = h("dd");
    rows.set(label, { name: h("dt", { text: label }), value });
    list.append(rows.get(label).name, value);
  };
  const LABELS = [
    "Evaluators",
    "Speed",
    "Time left",
    "This generation",
    "Queue",
    "Evaluations",
    "Failed",
    "A generation takes",
    "Checkpoint",
  ];
  LABELS.forEach(row);
  const bars = h("div", {}, bar.element);
  body.append(list, bars);
  bars.style.marginTop = "8px";

  function set(label, text, title = "") {
    say(rows.get(label).value, text);
    rows.get(label).value.title = title;
  }

  function update() {
    const { detail, history } = run;
    const { evaluators, status } = detail;
    const done = status.progress ?? {};
    const isRunning = detail.state === "Running";
    if (evaluators)
      set("Evaluators", `${count(evaluators.ready)} of ${count(evaluators.desired)} ready`);
    else
      set(
        "Evaluators",
        mode === "local" ? (isRunning ? "of kubevo run" : "none") : "–",
        mode === "local" ? "A local run's workers belong to the command that started it." : "",
      );
    bar.update(evaluators?.desired ? evaluators.ready / evaluators.desired : null);
    set(
      "Speed",
      isRunning && detail.framesPerSecond ? `${short(detail.framesPerSecond)} frames/s` : "–",
    );
    set("Time left", isRunning ? duration(history.secondsLeft(detail)) : "–");
    set(
      "This generation",
      isRunning && done.generationEpisodes
        ? `${count(done.generationEpisodesPlayed)} of ${count(done.generationEpisodes)} episodes`
        : "–",
    );
    set(
      "Queue",
      isRunning && done.openEpisodes !== undefined ? plural(done.openEpisodes, "episode") : "–",
      "Episodes that wait or are played now.",
    );
    set("Evaluations", count(done.evaluations ?? sum(history.columns.evaluations)));
    set("Failed", count(done.failedEvaluations ?? sum(history.columns.failed)));
    set("A generation takes", duration(history.secondsEach));
    const { checkpoint } = status;
    const saved = checkpoint?.time ?? detail.updated;
    const at = checkpoint
      ? `generation ${count(checkpoint.generation)}, ${bytes(checkpoint.bytes)}`
      : saved
        ? ago(saved)
        : history.last === null
          ? "none yet"
          : `generation ${count(history.last)}`;
    set("Checkpoint", at, moment(saved));
  }

  run.on("detail", update);
  run.on("history", update);
  update();
  return { element, close() {} };
}

function sum(values) {
  return values?.length ? values.reduce((total, value) => total + (value ?? 0), 0) : null;
}
