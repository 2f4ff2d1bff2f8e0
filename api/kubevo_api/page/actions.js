// What can be done with an experiment here: suspend, resume, stop, extend. The service says which;
// a local run has none, and is told how to obey its own command instead.

import { post } from "./api.js";
import { fill, h } from "./dom.js";
import { toast } from "./notices.js";

const SIMPLE = {
  suspend: { label: "Suspend", done: "It will pause; nothing is lost." },
  resume: { label: "Resume", done: "It goes on." },
};
const FIELDS = [
  ["maxGenerations", "Generations at most", "number"],
  ["maxFrames", "Frames at most", "number"],
  ["maxWallClockSeconds", "Running time at most, in seconds", "number"],
  ["targetFitness", "Stop at this fitness", "text"],
];

/** Return the buttons of `run`; `update()` when the service may allow others. */
export function actionButtons(run) {
  const element = h("div", { class: "end", role: "group", "aria-label": "Actions" });
  let shown = null;

  async function act(action, body, done) {
    try {
      run.update(await post(`${run.path}/${action}`, body));
      toast(done);
      return null;
    } catch (error) {
      if (error.status === undefined) throw error;
      return error;
    }
  }

  async function press(action) {
    const problem = await act(action, undefined, SIMPLE[action].done);
    if (problem) toast(problem.message, "bad");
  }

  const BUTTONS = {
    suspend: () =>
      h("button", {
        type: "button",
        text: SIMPLE.suspend.label,
        on: { click: () => press("suspend") },
      }),
    resume: () =>
      h("button", {
        type: "button",
        text: SIMPLE.resume.label,
        on: { click: () => press("resume") },
      }),
    extend: () =>
      h("button", { type: "button", text: "Extend…", on: { click: () => extendDialog(run, act) } }),
    stop: () =>
      h("button", {
        type: "button",
        class: "danger",
        text: "Stop…",
        on: { click: () => stopDialog(run, act) },
      }),
  };

  function update() {
    const allowed = Object.keys(BUTTONS).filter((action) => run.detail.actions?.includes(action));
    if (shown === allowed.join()) return;
    shown = allowed.join();
    element.hidden = allowed.length === 0;
    fill(
      element,
      allowed.map((action) => BUTTONS[action]()),
    );
  }

  update();
  return { element, update };
}

function stopDialog(run, act) {
  const text =
    "It ends after the generation that is played now, with its final test. Extending its budget lets it go on later.";
  dialog(`Stop ${run.name}?`, [h("p", { text })], "Stop it", "danger", () =>
    act("stop", undefined, "It stops after this generation."),
  );
}

function extendDialog(run, act) {
  const budget = run.detail.spec.budget ?? {};
  const inputs = FIELDS.map(([name, label, type]) => {
    const input = h("input", {
      name,
      type,
      min: type === "number" ? 1 : null,
      value: budget[name] ?? "",
      inputmode: "decimal",
    });
    return {
      name,
      type,
      input,
      label: h("label", { class: "field" }, h("span", { text: label }), input),
    };
  });
  const text = "Empty fields stay as they are. A finished search goes on from its last checkpoint.";
  dialog(
    `Extend ${run.name}`,
    [h("p", { class: "panel-note", text }), inputs.map((each) => each.label)],
    "Extend",
    "primary",
    () => {
      const changed = inputs.filter(
        ({ name, input }) =>
          input.value.trim() !== "" && input.value.trim() !== String(budget[name] ?? ""),
      );
      if (!changed.length) return new Error("Nothing was changed: raise at least one limit.");
      const body = Object.fromEntries(
        changed.map(({ name, type, input }) => [
          name,
          type === "number" ? Number(input.value) : input.value.trim(),
        ]),
      );
      return act("extend", body, "The budget is changed.");
    },
  );
}

// `confirm()` returns the error to show, or null when it is done.
function dialog(title, content, label, tone, confirm) {
  const problem = h("p", { class: "notice", data: { tone: "bad" }, role: "alert", hidden: true });
  const yes = h("button", { type: "submit", class: tone, text: label });
  const no = h("button", { type: "button", text: "Cancel", on: { click: () => element.close() } });
  async function submit(event) {
    event.preventDefault();
    yes.disabled = true;
    const error = await confirm();
    yes.disabled = false;
    if (!error) return element.close();
    problem.textContent = error.message;
    problem.hidden = false;
  }
  const form = h(
    "form",
    { on: { submit } },
    h("h2", { text: title }),
    content,
    problem,
    h("div", { class: "dialog-end" }, no, yes),
  );
  const element = h("dialog", { "aria-label": title, on: { close: () => element.remove() } }, form);
  document.body.append(element);
  element.showModal();
}
