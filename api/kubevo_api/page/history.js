// A search's history as the curve shows it: thinned out by the server when it is long, continued by
// live generations, and in full where the reader has zoomed in. Pure but for the `load` it is given.

const POINTS = 600;
// Points over which the pace is taken.
const LATELY = 5;

export class History {
  #load;
  #detail = null;
  #asking = 0;

  /** `load(query)` returns a page of the service's history. */
  constructor(load) {
    this.#load = load;
    this.repeat = null;
    this.repeats = 1;
    this.first = null;
    this.last = null;
    this.columns = { generation: [] };
  }

  get length() {
    return this.columns.generation.length;
  }

  /** Whether a point stands for several generations. */
  get isThinned() {
    return this.last !== null && this.last - this.first + 1 > this.length;
  }

  /** Whether live generations have made it much longer than a chart needs. */
  get isLong() {
    return this.length > 2 * POINTS;
  }

  /** Load all of it. */
  async load() {
    const page = await this.#load({ points: POINTS });
    Object.assign(this, {
      repeat: page.repeat,
      repeats: page.repeats,
      first: page.first,
      last: page.last,
    });
    this.columns = page.columns;
  }

  /** Append a live generation; false when there is a gap before it: load again. */
  append(row) {
    if (this.last !== null && row.generation <= this.last) return true;
    if (row.generation !== (this.last === null ? 0 : this.last + 1)) return false;
    // A column the server does not know yet stays as long as the others.
    for (const name of new Set([...Object.keys(this.columns), ...Object.keys(row)])) {
      const column = (this.columns[name] ??= new Array(this.length).fill(null));
      if (name !== "generation") column.push(row[name] ?? null);
    }
    this.columns.generation.push(row.generation);
    this.first ??= row.generation;
    this.last = row.generation;
    return true;
  }

  /** Load the generations from `from` to `to` in more detail; false when there is none to load. */
  async zoom(from, to) {
    const asking = (this.#asking += 1);
    if (!this.isThinned) return false;
    const page = await this.#load({
      from: Math.max(0, Math.floor(from)),
      to: Math.max(0, Math.ceil(to)),
      points: POINTS,
    });
    if (asking !== this.#asking) return false;
    this.#detail = page.rows ? page.columns : null;
    return this.#detail !== null;
  }

  /** Show all of it alike again. */
  unzoom() {
    this.#asking += 1;
    this.#detail = null;
  }

  /** Return the columns to draw: the detail, between what is left and right of it. */
  shown() {
    const detail = this.#detail;
    if (!detail) return this.columns;
    const { generation } = this.columns;
    const before = generation.findIndex((g) => g >= detail.generation[0]);
    const behind = generation.findIndex((g) => g > detail.generation.at(-1));
    const left = before < 0 ? generation.length : before;
    const right = behind < 0 ? generation.length : behind;
    const found = {};
    for (const name of Object.keys(detail)) {
      const all = this.columns[name];
      found[name] = [...all.slice(0, left), ...detail[name], ...all.slice(right)];
    }
    return found;
  }

  /** Seconds that a generation takes lately; null before there is one. */
  get secondsEach() {
    const { seconds, generation } = this.columns;
    if (!seconds?.length) return null;
    const back = Math.max(0, seconds.length - 1 - LATELY);
    const generations = generation.at(-1) - generation[back];
    return generations ? (seconds.at(-1) - seconds[back]) / generations : seconds.at(-1);
  }

  /** Seconds until the end: what the service says, else by the generations that are left. */
  secondsLeft({ etaSeconds, generation, generations }) {
    if (etaSeconds !== null || generations === null || this.secondsEach === null) return etaSeconds;
    return Math.max(0, generations - 1 - generation) * this.secondsEach;
  }

  /** Return the newest row as an object; null before there is one. */
  newest() {
    if (!this.length) return null;
    return Object.fromEntries(
      Object.entries(this.columns).map(([name, values]) => [name, values.at(-1)]),
    );
  }
}
