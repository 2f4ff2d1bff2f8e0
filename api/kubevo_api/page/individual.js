// What is known of one individual: its returns, its genome, its files, and the way to its ancestors.

import { fill, h, icon } from "./dom.js";
import { count, fitness } from "./format.js";
import { FILES } from "./downloads.js";
import { copyButton, failure } from "./parts.js";

const SHOWN_RETURNS = 12;

/** Fill `box` with individual `slot` of `generation`; `close()` is what its button does. */
export async function individualBox(box, run, generation, slot, close) {
  const place = `/generations/${generation}/individuals/${slot}`;
  let each;
  try {
    each = await run.get(place);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === undefined) throw error;
    const dismiss = h("button", { type: "button", text: "Close", on: { click: close } });
    fill(box, h("div", { class: "individual" }, failure(error, null, { small: true }), dismiss));
    return;
  }
  const returns = each.episodeReturns.slice(0, SHOWN_RETURNS).map(fitness).join(", ");
  const more =
    each.episodeReturns.length > SHOWN_RETURNS
      ? ` and ${each.episodeReturns.length - SHOWN_RETURNS} more`
      : "";
  const lineage = h("button", {
    type: "button",
    text: "Show its lineage",
    on: {
      click: () => run.dispatchEvent(new CustomEvent("trace", { detail: { generation, slot } })),
    },
  });
  const parent =
    generation > 0 && each.parent >= 0
      ? h("button", {
          type: "button",
          class: "link",
          text: `#${each.parent} of generation ${generation - 1}`,
          on: { click: () => run.choose(generation - 1, each.parent) },
        })
      : "none: it is of the first generation";
  const links = Object.entries(FILES).map(([file]) =>
    h("a", { href: run.href(`${place}/${file}`), download: "", text: file }),
  );
  const dismiss = h(
    "button",
    {
      type: "button",
      class: "quiet icon-only",
      "aria-label": "Close this individual",
      on: { click: close },
    },
    icon("close"),
  );
  fill(
    box,
    h(
      "div",
      { class: "individual" },
      h(
        "div",
        { class: "run-title" },
        h("h3", { text: `Individual #${slot} of generation ${generation}` }),
        lineage,
        dismiss,
      ),
      h(
        "dl",
        { class: "facts" },
        h("dt", { text: "Fitness" }),
        h("dd", { text: fitness(each.fitness) }),
        h("dt", { text: "Episode returns" }),
        h("dd", { text: returns + more }),
        h("dt", { text: "Frames" }),
        h("dd", { text: count(each.frames) }),
        h("dt", { text: "Parent" }),
        h("dd", {}, parent),
        h("dt", { text: "Mutations" }),
        h("dd", { text: count(each.mutations) }),
        each.failures.length
          ? [h("dt", { text: "Failures" }), h("dd", { text: each.failures.join("; ") })]
          : null,
      ),
      h(
        "div",
        { class: "command" },
        h("code", { text: shortened(each.genome) }),
        copyButton(() => each.genome, "Copy the genome"),
      ),
      h("div", { class: "links" }, h("span", { text: "Download" }), links),
    ),
  );
}

function shortened(genome) {
  return genome.length > 160 ? `${genome.slice(0, 120)} … ${genome.slice(-30)}` : genome;
}
