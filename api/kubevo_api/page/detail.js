// The view of one experiment: loads it, lays its panels out, and takes them down again.

import { curvePanel } from "./curve.js";
import { conditionsPanel, failuresPanel, specPanel } from "./documents.js";
import { fill, h } from "./dom.js";
import { explorerPanel } from "./explorer.js";
import { fleetPanel } from "./fleet.js";
import { lineagePanel } from "./lineage.js";
import { toast } from "./notices.js";
import { overview, tiles } from "./overview.js";
import { failure, message, skeleton } from "./parts.js";
import { Run } from "./run.js";
import { timelinePanel } from "./timeline.js";
import { videosPanel } from "./videos.js";

/** Show the experiment that `route` names in `view`. */
export function showDetail(view, route, frame) {
  const { namespace, name } = route.params;
  const asked = route.query.get("repeat");
  const repeat = asked !== null && /^\d{1,2}$/.test(asked) ? Number(asked) : null;
  document.title = `${name} · kubevo`;
  let parts = [];
  let run = null;

  function leave() {
    run?.end();
    for (const part of parts) part.close();
    parts = [];
  }

  async function begin() {
    leave();
    loading(view, name);
    const mine = (run = new Run(namespace, name, repeat));
    try {
      await mine.begin();
    } catch (error) {
      if (error.name === "AbortError") return;
      const home = h("a", { class: "button", href: "#/", text: "All experiments" });
      const shown =
        error.status === 404
          ? message("There is no such experiment", error.message, { actions: [home], alert: true })
          : failure(error, begin);
      fill(view, h("div", { class: "panel" }, shown));
      return;
    }
    if (mine !== run) return;
    build();
  }

  function build() {
    const mode = frame.mode;
    const make = (part) => {
      parts.push(part);
      return part.element;
    };
    // A chart needs its place in the page before it is drawn: they draw a moment later.
    fill(
      view,
      make(overview(run, mode)),
      make(tiles(run)),
      h(
        "div",
        { class: "board" },
        make(curvePanel(run)),
        h("div", { class: "column narrow" }, make(fleetPanel(run, mode)), make(timelinePanel(run))),
        make(explorerPanel(run)),
        make(lineagePanel(run)),
        h("div", { class: "column narrow" }, make(videosPanel(run, mode))),
        h("div", { class: "column half" }, make(conditionsPanel(run)), make(failuresPanel(run))),
        make(specPanel(run)),
      ),
    );
    run.on("gone", () => {
      toast(`${name} was deleted.`, "bad");
      run.end();
    });
  }

  begin();
  return leave;
}

function loading(view, name) {
  fill(
    view,
    h(
      "div",
      { class: "column", "aria-busy": "true", "aria-label": `Loading ${name}` },
      h("h1", { text: name }),
      skeleton(41),
      skeleton(86),
      h(
        "div",
        { class: "board" },
        h("div", { class: "wide" }, skeleton(470)),
        h("div", { class: "narrow" }, skeleton(470)),
      ),
    ),
  );
}
