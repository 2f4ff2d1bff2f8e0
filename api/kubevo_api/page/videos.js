// Recorded episodes: a player with a choice of generations.

import { fill, h } from "./dom.js";
import { bytes } from "./format.js";
import { message, panel } from "./parts.js";

/** Return the panel with the recordings of `run`. */
export function videosPanel(run, mode) {
  const choice = h("select", { "aria-label": "Recording", hidden: true, on: { change: play } });
  const { element, body, note } = panel("Recordings", { end: [choice] });
  const video = h("video", {
    controls: true,
    preload: "metadata",
    playsinline: true,
    muted: true,
    loop: true,
    "aria-label": "Recorded episode",
  });
  let items = [];
  let timer = null;

  function play() {
    const item = items[Number(choice.value)];
    if (!item) return;
    video.src = run.href(`/generations/${item.generation}/video.mp4`);
    note(bytes(item.bytes));
  }

  async function load() {
    timer = null;
    try {
      const found = (await run.get("/videos")).items.sort((a, b) => b.generation - a.generation);
      if (found.length === items.length && items.length) return;
      const isFirst = items.length === 0;
      items = found;
      show(isFirst);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === undefined) throw error;
      show(true);
    }
  }

  function show(isFirst) {
    choice.hidden = items.length === 0;
    if (!items.length) {
      const how =
        mode === "local"
          ? "`spec.recording.everyGenerations` records episodes; `kubevo play --record` films the best one now."
          : "`spec.recording.everyGenerations` records an episode of the elite.";
      fill(body, message("No recordings", how, { small: true }));
      return;
    }
    const chosen = isFirst ? null : video.src;
    fill(
      choice,
      items.map((item, i) => h("option", { value: i, text: `Generation ${item.generation}` })),
    );
    if (isFirst) {
      fill(body, h("div", { class: "film" }, video));
      choice.value = 0;
      play();
    } else {
      // What is being watched goes on.
      choice.value = Math.max(
        0,
        items.findIndex((item) =>
          chosen.endsWith(run.href(`/generations/${item.generation}/video.mp4`)),
        ),
      );
    }
  }

  run.on("detail", () => {
    timer ??= setTimeout(load, 1000);
  });
  show(true);
  load();
  return {
    element,
    close() {
      clearTimeout(timer);
      video.removeAttribute("src");
    },
  };
}
