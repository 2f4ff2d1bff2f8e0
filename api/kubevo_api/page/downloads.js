// The menu of files: models, tables, the spec. They are ordinary links: the session's cookie opens
// them, and the browser shows how far it is.

import { h, icon } from "./dom.js";

// The files a genome can be had as, and what each is for.
export const FILES = {
  "policy.py": "plays it: numpy, gymnasium",
  "model.safetensors": "weights",
  "model.onnx": "for onnxruntime",
  "genome.json": "the seeds",
  "README.md": "model card",
};

/** Return the menu; `update()` when there is, or is no longer, a best genome. */
export function downloadsMenu(run) {
  const list = h("div", { class: "menu-list" });
  const summary = h("summary", { class: "button primary" }, icon("download"), "Download");
  const element = h("details", { class: "menu" }, summary, list);
  const link = (path, name, text, query) =>
    h("a", { href: run.href(path, query), download: "" }, name, h("span", { text }));
  let shown = "";

  function update() {
    const { best } = run.detail;
    const state = `${run.repeat} ${Boolean(best)} ${run.history.length > 0}`;
    if (state === shown) return; // it may be open
    shown = state;
    const files = (of) =>
      Object.entries(FILES).map(([file, text]) => link(`/${of}/${file}`, file, text));
    list.replaceChildren();
    if (best)
      list.append(
        h("h3", { text: "Best genome" }),
        ...files("best"),
        h("h3", { text: "Newest elite" }),
        ...files("elite").slice(0, 2),
      );
    list.append(h("h3", { text: "Experiment" }));
    if (run.history.length)
      list.append(
        link("/history", "history.csv", "a row a generation", { format: "csv" }),
        link("/history", "history.parquet", "the same", { format: "parquet" }),
      );
    list.append(link("/spec.yaml", "spec.yaml", "runs it again"));
  }

  const outside = (event) => {
    if (!element.contains(event.target)) element.open = false;
  };
  const escape = (event) => {
    if (event.key !== "Escape" || !element.open) return;
    element.open = false;
    summary.focus();
  };
  document.addEventListener("click", outside);
  element.addEventListener("keydown", escape);
  list.addEventListener("click", (event) => {
    if (event.target.closest("a")) element.open = false;
  });
  update();
  return { element, update, close: () => document.removeEventListener("click", outside) };
}
