// All experiments as this page knows them: loaded once, then kept up to date by the stream. The
// whole list is kept here (a thousand summaries are half a megabyte), so that sorting and typing
// never wait; beyond MOST_LOADED the filters ask the server instead.

import { get } from "./api.js";
import { arrived, showConnection } from "./notices.js";
import { Stream } from "./stream.js";

const LOADED_AT_ONCE = 500;
const MOST_LOADED = 5000;

export class Catalogue {
  #aborter = new AbortController();
  #stream = null;
  #filter = {};
  #loading = 0;

  /** `onChange()` is called after every change; `onDeleted(id)` also when one is gone. */
  constructor({ onChange, onDeleted }) {
    this.onChange = onChange;
    this.onDeleted = onDeleted;
    this.summaries = new Map();
    this.total = 0;
    this.isLoaded = false;
    this.error = null;
  }

  /** Load, and follow from now on. */
  begin() {
    this.load();
    this.#stream = new Stream("/events", {
      handlers: {
        summary: (summary) => this.#changed(summary),
        deleted: ({ namespace, name }) => this.#deleted(`${namespace}/${name}`),
        reset: () => this.load(),
      },
      resync: () => this.load(),
      tell: (state) => showConnection(state, () => this.#stream?.retry()),
    });
  }

  end() {
    this.#aborter.abort();
    this.#stream.close();
  }

  /** Whether there are more than are kept here. */
  get isCut() {
    return this.total > this.summaries.size;
  }

  /** Tell what is looked for: asked of the server only where not everything is here. */
  filter(wanted) {
    this.#filter = wanted;
    if (this.total > MOST_LOADED) this.load();
  }

  /** Load all again, as far as they are kept. */
  async load() {
    const loading = (this.#loading += 1);
    const fresh = new Map();
    try {
      let page;
      do {
        const filter = this.total > MOST_LOADED ? this.#filter : {};
        const query = { limit: LOADED_AT_ONCE, continue: page?.continue, ...filter };
        page = await get("/experiments", query, this.#aborter.signal);
        for (const each of page.items) fresh.set(`${each.namespace}/${each.name}`, each);
      } while (page.continue && fresh.size < MOST_LOADED);
      if (loading !== this.#loading) return;
      this.summaries = fresh;
      // With a filter the server counts only what fits it.
      this.total = Math.max(page.total, this.isLoaded && this.total > MOST_LOADED ? this.total : 0);
      this.isLoaded = true;
      this.error = null;
      arrived();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === undefined) throw error;
      this.error = error;
    }
    this.onChange();
  }

  #changed(summary) {
    arrived();
    if (!this.isLoaded) return;
    const id = `${summary.namespace}/${summary.name}`;
    if (!this.summaries.has(id)) this.total += 1;
    this.summaries.set(id, summary);
    this.onChange();
  }

  #deleted(id) {
    arrived();
    if (this.summaries.delete(id)) this.total -= 1;
    this.onDeleted(id);
    this.onChange();
  }
}
