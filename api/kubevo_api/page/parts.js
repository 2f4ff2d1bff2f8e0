// Small pieces that several views are made of.

import { fill, h, icon, say } from "./dom.js";
import { STATES } from "./format.js";

/** Return a badge that shows a state; `update` changes it in place. */
export function badge() {
  const element = h("span", { class: "badge" });
  let shown = null;
  return {
    element,
    update(state) {
      if (state === shown) return;
      shown = state;
      const { tone, icon: sign } = STATES[state] ?? STATES.Pending;
      element.dataset.tone = tone;
      fill(element, sign ? icon(sign) : h("span", { class: "pulse" }), state);
    },
  };
}

/** Return a thin bar; `update(part)` with 0…1, null hides it without moving anything. */
export function progress() {
  const bar = h("span");
  const element = h("span", { class: "progress", "aria-hidden": "true" }, bar);
  return {
    element,
    update(part) {
      element.style.visibility = part === null ? "hidden" : "visible";
      bar.style.transform = `scaleX(${Math.min(1, Math.max(0, part ?? 0))})`;
    },
  };
}

/** Return a panel with a heading; `end` holds its controls, `body` what it shows. */
export function panel(title, { note = "", end = [], flush = false, class: name = "" } = {}) {
  const noted = h("span", { class: "panel-note", text: note });
  const body = h("div", { class: flush ? "panel-body flush" : "panel-body" });
  const element = h(
    "section",
    { class: `panel ${name}`, "aria-label": title },
    h(
      "div",
      { class: "panel-head" },
      h("h2", { text: title }),
      noted,
      h("div", { class: "end" }, end),
    ),
    body,
  );
  return { element, body, note: (text) => say(noted, text) };
}

/** Return what stands where there is nothing to show. */
export function message(title, text = "", { small = false, actions = [], alert = false } = {}) {
  return h(
    "div",
    { class: small ? "message small" : "message", role: alert ? "alert" : null },
    title ? h("h2", { text: title }) : null,
    text ? h("p", {}, prose(text)) : null,
    actions,
  );
}

/** Return an error as a person can act on it, with a button that tries again. */
export function failure(error, retry, { small = false } = {}) {
  const title = error.status
    ? `${error.title} (${error.status})`
    : (error.title ?? "Something broke");
  const actions = retry
    ? [h("button", { type: "button", text: "Try again", on: { click: retry } })]
    : [];
  return message(title, error.message, { small, actions, alert: true });
}

/** Return a sentence with what stands between backticks as code. */
export function prose(sentence) {
  return sentence.split("`").map((part, i) => (i % 2 ? h("code", { text: part }) : part));
}

/** Return a command with a button that copies it. */
export function command(text) {
  return h(
    "div",
    { class: "command" },
    h("code", { text }),
    copyButton(() => text, "Copy the command"),
  );
}

/** Return a button that copies what `textOf()` gives. */
export function copyButton(textOf, label) {
  const button = h(
    "button",
    { type: "button", class: "quiet icon-only", "aria-label": label, title: label },
    icon("copy"),
  );
  button.addEventListener("click", async () => {
    const isCopied = await copy(textOf());
    fill(button, icon(isCopied ? "check" : "cross"));
    button.title = isCopied ? "Copied" : "The browser does not let pages copy here";
    setTimeout(() => {
      fill(button, icon("copy"));
      button.title = label;
    }, 1500);
  });
  return button;
}

async function copy(text) {
  try {
    // Not there on plain http from another machine.
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Return buttons of which one is pressed. `options`: [value, label] pairs. */
export function segments(label, options, chosen, onChoice) {
  const buttons = options.map(([value, text]) =>
    h("button", {
      type: "button",
      "aria-pressed": String(value === chosen),
      text,
      on: { click: () => choose(value) },
    }),
  );
  function choose(value) {
    buttons.forEach((button, i) =>
      button.setAttribute("aria-pressed", String(options[i][0] === value)),
    );
    onChoice(value);
  }
  return h("div", { class: "segments", role: "group", "aria-label": label }, buttons);
}

/** Return a table's head and rows; `columns`: [heading, isNumber] pairs. */
export function table(columns, rows, { class: name = "", label } = {}) {
  const head = columns.map(([text, isNumber]) =>
    h("th", { scope: "col", class: isNumber ? "number" : null, text }),
  );
  return h(
    "table",
    { class: name, "aria-label": label },
    h("thead", {}, h("tr", {}, head)),
    h("tbody", {}, rows),
  );
}

/** Return lines that breathe while something is on its way, as high as what will stand there. */
export function skeleton(height) {
  const element = h("div", { class: "skeleton", "aria-hidden": "true" });
  element.style.height = `${height}px`;
  return element;
}
