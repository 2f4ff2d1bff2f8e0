// Light, dark, or as the system says: a switch with three positions, kept in this browser.

import { fill, icon } from "./dom.js";

const KEY = "kubevo-theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const ICON = { auto: "auto", light: "sun", dark: "moon" };
const SAID = { auto: "as the system", light: "light", dark: "dark" };
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

/** Make `button` the switch. */
export function begin(button) {
  apply(button, stored());
  button.addEventListener("click", () => {
    const wanted = NEXT[stored()];
    try {
      localStorage.setItem(KEY, wanted);
    } catch {
      document.documentElement.dataset.wanted = wanted; // no storage: until the page is left
    }
    apply(button, wanted);
  });
  system.addEventListener("change", () => apply(button, stored()));
}

/** Call `listener` when the colours change; returns how to stop. */
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function stored() {
  let wanted = document.documentElement.dataset.wanted;
  try {
    wanted = localStorage.getItem(KEY) ?? wanted;
  } catch {
    // Storage is forbidden here.
  }
  return wanted in NEXT ? wanted : "auto";
}

function apply(button, wanted) {
  const isDark = wanted === "dark" || (wanted === "auto" && system.matches);
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  fill(button, icon(ICON[wanted]));
  const label = `Colours: ${SAID[wanted]}. Switch to ${SAID[NEXT[wanted]]}`;
  button.setAttribute("aria-label", label);
  button.title = label;
  for (const listener of listeners) listener();
}
