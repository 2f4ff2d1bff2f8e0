// What the experiment says in words: its conditions, its failed episodes, its spec as YAML.

import { text as getText } from "./api.js";
import { append, fill, h, icon } from "./dom.js";
import { moment } from "./format.js";
import { copyButton, failure, message, panel, prose, table } from "./parts.js";

const FAILURES_AT_ONCE = 50;

/** Return the panel with the conditions of `run`. */
export function conditionsPanel(run) {
  const { element, body } = panel("Conditions", { flush: true });
  let shown = null;

  function update() {
    const conditions = run.detail.status.conditions ?? [];
    const now = JSON.stringify(conditions);
    if (now === shown) return;
    shown = now;
    if (!conditions.length) {
      fill(body, message("", "No condition has been reported yet.", { small: true }));
      return;
    }
    const rows = conditions.map((each) =>
      h(
        "tr",
        {},
        h("td", {}, h("b", { text: each.type })),
        h("td", { text: each.status }),
        h("td", { text: each.reason ?? "" }),
        h("td", {}, prose(each.message ?? "")),
        h("td", {
          class: "panel-note",
          text: each.lastTransitionTime ? moment(each.lastTransitionTime) : "",
        }),
      ),
    );
    fill(
      body,
      h(
        "div",
        { class: "scroll" },
        table([["Type"], ["Status"], ["Reason"], ["Message"], ["Since"]], rows, {
          label: "Conditions",
        }),
      ),
    );
  }

  run.on("detail", update);
  update();
  return { element, close() {} };
}

/** Return the panel with the failed episodes of `run`. */
export function failuresPanel(run) {
  const reload = h("button", { type: "button", text: "Reload", on: { click: () => load() } });
  const { element, body, note } = panel("Failed episodes", { flush: true, end: [reload] });
  const list = h("ul", {
    class: "failures",
    tabindex: 0,
    "aria-label": "Failed episodes, newest first",
  });
  const more = h("button", {
    type: "button",
    class: "quiet",
    text: "Show more",
    hidden: true,
    on: { click: () => load(next) },
  });
  let next = null;

  async function load(from = null) {
    if (run.history.length === 0) return empty();
    try {
      const page = await run.get("/logs", { limit: FAILURES_AT_ONCE, continue: from });
      if (!from) fill(list);
      append(list, page.items.map(item));
      next = page.continue;
      more.hidden = next === null;
      if (list.children.length) fill(body, list, more);
      else empty();
      note(list.children.length ? "at most ten of each generation are kept" : "");
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === undefined) throw error;
      fill(
        body,
        failure(error, () => load(), { small: true }),
      );
    }
  }

  function empty() {
    fill(body, message("", "No episode has failed.", { small: true }));
  }

  run.on("history", (row) => {
    if (row?.failed && !list.children.length) load();
  });
  load();
  return { element, close() {} };
}

function item(each) {
  const place = `Generation ${each.generation}, ${each.purpose}, slot ${each.slot}, episode ${each.episode}`;
  return h(
    "li",
    { class: "failure" },
    h("div", { class: "panel-note", text: place }),
    h("div", { class: "mono", text: each.failure }),
  );
}

/** Return the panel with the spec of `run` as YAML. */
export function specPanel(run) {
  let yaml = "";
  const download = h(
    "a",
    {
      class: "button quiet icon-only",
      href: run.href("/spec.yaml"),
      download: `${run.name}.yaml`,
      "aria-label": "Download the spec",
      title: "Download the spec",
    },
    icon("download"),
  );
  const { element, body } = panel("Spec", {
    flush: true,
    class: "half",
    end: [copyButton(() => yaml, "Copy the spec"), download],
  });
  const code = h("pre", { class: "yaml", tabindex: 0, "aria-label": "Spec as YAML" });
  body.append(code);

  async function load() {
    try {
      yaml = await getText(`${run.path}/spec.yaml`);
      fill(code, yaml.trimEnd().split("\n").map(coloured));
      body.replaceChildren(code);
    } catch (error) {
      if (error.status === undefined) throw error;
      fill(body, failure(error, load, { small: true }));
    }
  }

  load();
  return { element, close() {} };
}

// Good enough for what the service writes: keys stand before a colon, nothing else is coloured.
function coloured(line) {
  const found = /^(\s*(?:- )?)([\w./-]+)(:.*)$/.exec(line);
  if (!found) return `${line}\n`;
  return [found[1], h("span", { class: "key", text: found[2] }), `${found[3]}\n`];
}
