// Asks for the token where none is known, or where the known one is not valid (any more).

import { fill, h } from "./dom.js";
import { enter } from "./session.js";

/** Show the form in `view`; `onDone` is called when the server accepts the token. */
export function ask(view, { isRefused, onDone }) {
  const input = h("input", {
    type: "password",
    name: "token",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    "aria-describedby": "sign-in-help",
  });
  const problem = h("p", { class: "notice", data: { tone: "bad" }, role: "alert", hidden: true });
  const button = h("button", { class: "primary", type: "submit", text: "Open" });
  if (isRefused)
    complain("The token that was used is not valid here: the server may have a new one.");

  function complain(text) {
    problem.textContent = text;
    problem.hidden = false;
  }

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      await enter(tokenIn(input.value));
      onDone();
    } catch (error) {
      complain(error.message);
      input.select();
    } finally {
      button.disabled = false;
    }
  }

  const form = h(
    "form",
    { on: { submit } },
    h("h1", { text: "Who is asking?" }),
    h(
      "p",
      { id: "sign-in-help", class: "panel-note" },
      "Open the address that ",
      h("code", { text: "kubevo serve" }),
      " printed: it carries the token. Or paste that address, or the token alone, here; it is in the file ",
      h("code", { text: "api-token" }),
      " of the data directory. On a cluster: ",
      h("code", { text: "kubectl create token" }),
      ".",
    ),
    h("label", { class: "field" }, h("span", { text: "Token" }), input),
    problem,
    button,
  );
  fill(view, h("div", { class: "panel sign-in" }, form));
  input.focus();
}

// People paste the whole address.
function tokenIn(text) {
  const found = /#token=([^&\s]+)/.exec(text);
  return found ? decodeURIComponent(found[1]) : text.trim();
}
