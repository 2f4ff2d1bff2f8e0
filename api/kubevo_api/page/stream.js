// Follows a stream of server-sent events and says honestly whether it still does. A lost stream is
// opened again with growing pauses; what was missed meanwhile the caller loads (`resync`).

import { address } from "./api.js";
import * as session from "./session.js";

const FIRST_PAUSE_SECONDS = 1;
const LONGEST_PAUSE_SECONDS = 30;

export class Stream {
  #path;
  #handlers;
  #resync;
  #tell;
  #source = null;
  #timer = null;
  #failures = 0;
  #wasOpen = false;
  #isClosed = false;

  /** `handlers`: a function of the parsed data for each event; `tell({state, retryAt})`. */
  constructor(path, { handlers, resync, tell }) {
    this.#path = path;
    this.#handlers = handlers;
    this.#resync = resync;
    this.#tell = tell;
    document.addEventListener("visibilitychange", this.#look);
    window.addEventListener("online", this.retry);
    this.#tell({ state: "connecting" });
    this.#open();
  }

  close() {
    this.#isClosed = true;
    document.removeEventListener("visibilitychange", this.#look);
    window.removeEventListener("online", this.retry);
    this.#release();
  }

  /** Try again now. */
  retry = () => {
    if (this.#isClosed || this.#source) return;
    this.#release();
    this.#probe();
  };

  // A browser gives a server six connections: a tab that nobody sees must not hold one.
  #look = () => {
    if (document.hidden) this.#release();
    else if (!this.#source) this.#open();
  };

  #release() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #open() {
    const source = new EventSource(address(this.#path));
    this.#source = source;
    source.onopen = () => {
      this.#failures = 0;
      this.#tell({ state: "live" });
      if (this.#wasOpen) this.#resync();
      this.#wasOpen = true;
    };
    source.onerror = () => this.#lost();
    for (const [name, handle] of Object.entries(this.#handlers)) {
      source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    }
  }

  #lost() {
    this.#release();
    if (this.#isClosed) return;
    // Spread, so that a restarted server does not meet every page at once.
    const pause = Math.min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** this.#failures);
    const milliseconds = pause * 1000 * (0.75 + Math.random() / 2);
    this.#failures += 1;
    this.#wasOpen = true;
    this.#tell({ state: "lost", retryAt: Date.now() + milliseconds });
    this.#timer = setTimeout(() => this.#probe(), milliseconds);
  }

  // EventSource does not say why it failed; an ordinary request does (and asks for a new token).
  async #probe() {
    try {
      // Also makes the cookie anew: it ends some hours after it was made.
      if (!(await session.open())) return;
    } catch (error) {
      if (error.status === undefined) throw error;
      if (!this.#isClosed) this.#lost();
      return;
    }
    if (!this.#isClosed && !document.hidden) this.#open();
  }
}
