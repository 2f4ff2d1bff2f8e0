// What the list shows while there is nothing in it: how to begin, or how to see more.

import { h } from "./dom.js";
import { command, message } from "./parts.js";

const FIRST = {
  local: {
    text: "Start one in another terminal, with this directory as its data; it appears here by itself.",
    command: "kubevo run examples/cartpole.yaml --data DIR",
  },
  cluster: {
    text: "Apply one; it appears here by itself, and its curve after the first generation.",
    command: "kubectl apply -f examples/cartpole.yaml",
  },
};

/** Return the invitation of a first visit. */
export function emptyList(mode) {
  const first = FIRST[mode] ?? FIRST.local;
  const mark = h("img", { src: "/static/favicon.svg", alt: "", width: 44, height: 44 });
  const shown = message("No experiments yet", first.text, { actions: [command(first.command)] });
  shown.prepend(mark);
  return shown;
}

/** Return what stands where no experiment fits the filters. */
export function nothingFits(clear) {
  const button = h("button", { type: "button", text: "Clear the filters", on: { click: clear } });
  return message("No experiment fits", "There are some, but none with this name and state.", {
    actions: [button],
  });
}
