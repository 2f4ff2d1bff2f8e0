// One Experiment as this page knows it: loaded once, then kept up to date by its stream. Panels
// listen to "detail", "history", "tests", "note", "gone" and "choose"; they never load these.

import { Problem, address, experiment, get } from "./api.js";
import { History } from "./history.js";
import { arrived, showConnection } from "./notices.js";
import { Stream } from "./stream.js";

// How often what no event carries (conditions, tests) is looked at while something happens.
const REFRESH_MILLISECONDS = 4000;

export class Run extends EventTarget {
  #aborter = new AbortController();
  #stream = null;
  #refresh = null;
  #isReloading = false;

  constructor(namespace, name, repeat) {
    super();
    this.namespace = namespace;
    this.name = name;
    this.path = experiment(namespace, name);
    this.repeat = repeat;
    this.detail = null;
    this.tests = [];
    this.history = new History((query) => this.get("/history", query));
  }

  /** GET something of this Experiment and of the repeat that is shown. */
  get(path, query = {}, signal = this.#aborter.signal) {
    return get(this.path + path, { repeat: this.repeat, ...query }, signal);
  }

  /** Return the address of a file of this Experiment. */
  href(path, query = {}) {
    const repeat = (this.detail?.repeats ?? 1) > 1 ? this.repeat : null;
    return address(this.path + path, { repeat, ...query });
  }

  /** Load everything, then follow. Throws what the server says against it. */
  async begin() {
    this.detail = await get(this.path, {}, this.#aborter.signal);
    await this.#loadHistory();
    await this.#loadTests();
    arrived();
    this.#stream = new Stream(`${this.path}/events`, {
      handlers: {
        generation: (event) => this.#generation(event),
        status: (summary) => this.#status(summary),
        deleted: () => this.#gone(),
      },
      resync: () => this.#resync(),
      tell: (state) => {
        showConnection(state, () => this.#stream?.retry());
        if (state.state === "lost") this.note("Connection lost");
      },
    });
  }

  end() {
    this.#aborter.abort();
    this.#stream?.close();
    clearTimeout(this.#refresh);
  }

  /** Add a line to the events. */
  note(text) {
    this.#emit("note", { text });
  }

  /** Show a generation, and an individual of it, wherever that is shown. */
  choose(generation, slot = null) {
    this.#emit("choose", { generation, slot });
  }

  /** Take what an action answered. */
  update(summary) {
    this.#status(summary);
  }

  /** Call `listener` with the detail of each `name` event. */
  on(name, listener) {
    this.addEventListener(name, (event) => listener(event.detail));
  }

  #emit(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  async #loadHistory() {
    try {
      await this.history.load();
      this.repeat = this.history.repeat;
    } catch (error) {
      // There is no directory before the first generation.
      if (!(error instanceof Problem && error.status === 404)) throw error;
    }
  }

  async #loadTests() {
    try {
      this.tests = (await this.get("/tests")).items;
    } catch (error) {
      if (!(error instanceof Problem && error.status === 404)) throw error;
    }
  }

  #generation({ repeat, row }) {
    arrived();
    if (this.repeat !== null && repeat !== this.repeat) return;
    this.repeat ??= repeat;
    if (this.history.last !== null && row.generation <= this.history.last) return;
    if (this.history.append(row) && !this.history.isLong) this.#emit("history", row);
    else this.#reload();
    this.#later();
  }

  async #reload() {
    if (this.#isReloading) return;
    this.#isReloading = true;
    try {
      await this.#loadHistory();
      this.#emit("history", this.history.newest());
    } catch (error) {
      this.#ignoreLoss(error);
    } finally {
      this.#isReloading = false;
    }
  }

  #status(summary) {
    arrived();
    const before = this.detail.state;
    this.detail = { ...this.detail, ...summary };
    this.#emit("detail", this.detail);
    if (summary.state !== before) {
      this.note(`${before} → ${summary.state}${summary.reason ? ` (${summary.reason})` : ""}`);
      this.#look();
    } else this.#later();
  }

  #gone() {
    this.#stream.close();
    showConnection({ state: "ended" });
    this.#emit("gone");
  }

  async #resync() {
    this.note("Connected again");
    await this.#reload();
    await this.#look();
  }

  #later() {
    this.#refresh ??= setTimeout(() => this.#look(), REFRESH_MILLISECONDS);
  }

  async #look() {
    clearTimeout(this.#refresh);
    this.#refresh = null;
    try {
      this.detail = await get(this.path, {}, this.#aborter.signal);
      this.#emit("detail", this.detail);
      // A generation may have been finished after the history was loaded and before the stream.
      if ((this.history.last ?? -1) < (this.detail.generation ?? -1)) await this.#reload();
      await this.#loadTests();
      this.#emit("tests");
    } catch (error) {
      if (error instanceof Problem && error.status === 404) this.#gone();
      else this.#ignoreLoss(error);
    }
  }

  // The stream notices a lost server by itself, and says so.
  #ignoreLoss(error) {
    if (error.name !== "AbortError" && error.status === undefined) throw error;
  }
}
