// What the frame says: whether the page is live, what happened, and that the server is gone.

import { fill, h, say } from "./dom.js";
import { clock } from "./format.js";

const WORDS = { live: "Live", connecting: "Connecting", lost: "Offline", ended: "" };
const TOAST_MILLISECONDS = 7000;

const connection = document.getElementById("connection");
const banner = document.getElementById("banner");
const toasts = document.getElementById("toasts");
let ticking = null;
let seen = null;

/** Show how the stream is; `retry` is what the banner's button does. */
export function showConnection({ state, retryAt = 0 }, retry = () => {}) {
  clearInterval(ticking);
  connection.hidden = state === "ended";
  connection.dataset.state = state;
  say(connection, WORDS[state]);
  if (state === "live") arrived();
  if (state !== "lost") {
    // While it is being tried again, what is shown is still old.
    if (state !== "connecting") banner.hidden = true;
    return;
  }
  const left = h("span");
  const tick = () => {
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    say(left, seconds ? `trying again in ${seconds} s` : "trying again…");
  };
  tick();
  ticking = setInterval(tick, 1000);
  const since = seen ? `what you see is from ${clock(seen)}` : "nothing is updated";
  fill(
    banner,
    h("span", { text: `The connection is lost: ${since}.` }),
    // Counting down aloud would talk over everything else.
    h("span", { "aria-hidden": "true" }, left),
    h("button", { type: "button", text: "Try now", on: { click: retry } }),
  );
  banner.hidden = false;
}

/** Note that something arrived just now. */
export function arrived() {
  seen = new Date();
}

/** Say something that happened, for a while. */
export function toast(text, tone = "") {
  const element = h("div", { class: "toast", data: { tone }, text });
  toasts.append(element);
  setTimeout(() => element.remove(), TOAST_MILLISECONDS);
}
