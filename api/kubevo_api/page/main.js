// The page's root: opens the session, watches the address, and gives the middle of the page to one
// view at a time. A view is a function of (element, route, frame) that returns how to leave it.

import { get, onRefused } from "./api.js";
import { showCompare } from "./compare.js";
import { showDetail } from "./detail.js";
import { fill, h, say } from "./dom.js";
import { showList } from "./list.js";
import { showConnection } from "./notices.js";
import { failure, message } from "./parts.js";
import { parse } from "./router.js";
import * as session from "./session.js";
import { ask } from "./signin.js";
import * as theme from "./theme.js";

const VIEWS = { list: showList, detail: showDetail, compare: showCompare, missing: showMissing };

const view = document.getElementById("view");
const frame = { mode: "local" };
let leave = () => {};
let isAsking = false;

function show() {
  leave();
  leave = () => {};
  showConnection({ state: "ended" });
  const route = parse(location.hash);
  for (const link of document.querySelectorAll("[data-nav]")) {
    if (link.dataset.nav === route.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = "kubevo";
  window.scrollTo(0, 0);
  leave = VIEWS[route.view](view, route, frame);
}

function showMissing(element, route) {
  const home = h("a", { class: "button", href: "#/", text: "All experiments" });
  fill(element, message("There is no such page", route.params.path, { actions: [home] }));
  return () => {};
}

function askForToken(isRefused) {
  if (isAsking) return;
  isAsking = true;
  leave();
  leave = () => {};
  showConnection({ state: "ended" });
  ask(view, {
    isRefused,
    onDone() {
      isAsking = false;
      start();
    },
  });
}

async function start() {
  try {
    if (!(await session.open())) return; // the form is there already
    const { version, mode } = await get("/version");
    frame.mode = mode;
    say(document.getElementById("version"), `${version} · ${mode}`);
  } catch (error) {
    fill(view, failure(error, start));
    return;
  }
  show();
}

onRefused(() => {
  const wasKnown = session.isKnown();
  session.forget();
  askForToken(wasKnown);
});
window.addEventListener("hashchange", () => {
  if (session.takeFromAddress()) {
    isAsking = false;
    start();
  } else if (!isAsking) {
    show();
    view.focus({ preventScroll: true });
  }
});
document.getElementById("skip").addEventListener("click", (event) => {
  // The fragment is the address of a view: it must not become #view.
  event.preventDefault();
  view.focus();
});
theme.begin(document.getElementById("theme"));
session.takeFromAddress();
session.keepOpen();
start();
