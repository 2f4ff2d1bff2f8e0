// The first view: all experiments as a live table with filters, order and pages. What is asked for
// stands in the address, so that a reload or a link comes back to it.

import { Catalogue } from "./catalogue.js";
import { append, fill, h } from "./dom.js";
import { STATES, count, plural } from "./format.js";
import { emptyList, nothingFits } from "./list_empty.js";
import { COLUMNS, byColumn, columnsFor, rowOf } from "./list_rows.js";
import { failure, skeleton } from "./parts.js";
import { remember, toCompare } from "./router.js";

const PAGE_SIZE = 50;
const TYPING_MILLISECONDS = 250;
// "3 min ago" grows old by itself.
const AGING_MILLISECONDS = 10_000;

/** Show the list in `view`. */
export function showList(view, route, frame) {
  const list = new List(view, route.query, frame);
  list.begin();
  return () => list.end();
}

class List {
  #rows = new Map();
  #picked = new Set();
  #frameRequest = 0;
  #typing = null;
  #aging = null;

  constructor(view, query, frame) {
    this.view = view;
    this.frame = frame;
    this.all = new Catalogue({
      onChange: () => this.#soon(),
      onDeleted: (id) => {
        this.#picked.delete(id);
        this.#rows.delete(id);
      },
    });
    const order = query.get("sort") ?? "name";
    this.asked = {
      q: query.get("q") ?? "",
      state: query.get("state") ?? "",
      namespace: query.get("namespace") ?? "",
      sort: COLUMNS.some((c) => c.id === order.replace("-", "")) ? order : "name",
      page: Math.max(1, Number(query.get("page")) || 1),
    };
  }

  begin() {
    this.#build();
    this.#render();
    this.#aging = setInterval(() => this.#soon(), AGING_MILLISECONDS);
    this.all.begin();
  }

  end() {
    this.all.end();
    clearTimeout(this.#typing);
    clearInterval(this.#aging);
    cancelAnimationFrame(this.#frameRequest);
  }

  // However much happens, it is drawn once a frame.
  #soon() {
    this.#frameRequest ||= requestAnimationFrame(() => {
      this.#frameRequest = 0;
      this.#render();
    });
  }

  // --- what is shown ---

  #build() {
    this.total = h("span", { class: "total", role: "status" });
    this.compare = h("a", { class: "button", href: "#/compare", text: "Compare" });
    this.search = h("input", {
      type: "search",
      placeholder: "Name or environment",
      value: this.asked.q,
      maxlength: 100,
      "aria-label": "Filter by name or environment",
      on: { input: () => this.#typed() },
    });
    this.stateChoice = h(
      "select",
      {
        "aria-label": "Filter by state",
        on: { change: () => this.#ask({ state: this.stateChoice.value }) },
      },
      h("option", { value: "", text: "Any state" }),
      Object.keys(STATES).map((state) => h("option", { value: state, text: state })),
    );
    this.stateChoice.value = this.asked.state;
    this.namespaceChoice = h("select", {
      "aria-label": "Filter by namespace",
      hidden: true,
      on: { change: () => this.#ask({ namespace: this.namespaceChoice.value }) },
    });
    this.filters = h(
      "div",
      { class: "filters", role: "search" },
      this.search,
      this.stateChoice,
      this.namespaceChoice,
    );
    this.body = h("tbody", { role: "rowgroup" });
    this.heads = new Map();
    const columns = columnsFor(this.frame.mode);
    const head = columns.map((column) => this.#head(column));
    const widths = columns.map((column) => {
      const col = h("col");
      col.style.width = column.width;
      return col;
    });
    this.table = h(
      "table",
      { class: "experiments", role: "table", "aria-label": "Experiments" },
      h("colgroup", {}, widths),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
      this.body,
    );
    this.box = h("div", { class: "panel scroll" }, this.table);
    this.instead = h("div", { class: "panel" });
    this.pager = h("nav", { class: "pager", "aria-label": "Pages" });
    fill(
      this.view,
      h(
        "div",
        { class: "view-head" },
        h("h1", { text: "Experiments" }),
        this.total,
        h("div", { class: "end" }, this.compare),
      ),
      this.filters,
      this.box,
      this.instead,
      this.pager,
    );
  }

  #head(column) {
    const isNumber = column.isNumber ? "number" : null;
    const props = { scope: "col", role: "columnheader", class: isNumber };
    if (!column.compare) return h("th", props, h("span", { class: "sr-only", text: column.title }));
    const press = () => this.#sortBy(column);
    const element = h(
      "th",
      props,
      h("button", { type: "button", text: column.title, on: { click: press } }),
    );
    this.heads.set(column.id, element);
    return element;
  }

  #sortBy(column) {
    const now = this.asked.sort;
    const first = column.isNumber ? `-${column.id}` : column.id;
    const second = column.isNumber ? column.id : `-${column.id}`;
    this.#ask({ sort: now === first ? second : first });
  }

  #typed() {
    clearTimeout(this.#typing);
    this.#typing = setTimeout(
      () => this.#ask({ q: this.search.value.trim() }),
      TYPING_MILLISECONDS,
    );
  }

  #ask(change) {
    this.asked = { ...this.asked, page: 1, ...change };
    const { q, state, namespace, sort, page } = this.asked;
    remember({
      q,
      state,
      namespace,
      sort: sort === "name" ? "" : sort,
      page: page > 1 ? page : "",
    });
    this.all.filter({ q, state });
    this.#render();
  }

  #fitting() {
    const { q, state, namespace, sort } = this.asked;
    const wanted = q.toLowerCase();
    const found = [...this.all.summaries.values()].filter(
      (each) =>
        (!state || each.state === state) &&
        (!namespace || each.namespace === namespace) &&
        (!wanted ||
          each.name.toLowerCase().includes(wanted) ||
          each.environment.toLowerCase().includes(wanted)),
    );
    return found.sort(byColumn(sort));
  }

  #render() {
    const fitting = this.all.isLoaded ? this.#fitting() : [];
    const pages = Math.max(1, Math.ceil(fitting.length / PAGE_SIZE));
    const page = Math.min(this.asked.page, pages);
    const shown = fitting.slice((page - 1) * PAGE_SIZE, page * PAGE_SIZE);
    this.#renderTotal(fitting.length);
    this.#renderNamespaces();
    this.#renderSort();
    this.#renderRows(shown);
    this.#renderInstead(shown.length);
    this.#renderPager(page, pages, fitting.length);
    this.#renderCompare();
  }

  #renderTotal(fitting) {
    if (!this.all.isLoaded) return;
    const all = plural(this.all.total, "experiment");
    const cut = this.all.isCut
      ? ` (the first ${count(this.all.summaries.size)} are here: filter to see others)`
      : "";
    const text = fitting === this.all.total ? all : `${fitting} of ${all}${cut}`;
    if (this.total.textContent !== text) this.total.textContent = text;
  }

  #renderNamespaces() {
    const names = [
      ...new Set([...this.all.summaries.values()].map((each) => each.namespace)),
    ].sort();
    const known = names.join(" ");
    this.namespaceChoice.hidden = names.length < 2 && !this.asked.namespace;
    if (this.namespaceChoice.dataset.known === known) return;
    this.namespaceChoice.dataset.known = known;
    const options = names.map((name) => h("option", { value: name, text: name }));
    fill(this.namespaceChoice, h("option", { value: "", text: "All namespaces" }), options);
    this.namespaceChoice.value = this.asked.namespace;
  }

  #renderSort() {
    for (const [id, head] of this.heads) {
      const order = { [id]: "ascending", [`-${id}`]: "descending" }[this.asked.sort] ?? "none";
      head.setAttribute("aria-sort", order);
    }
  }

  #renderRows(shown) {
    const wanted = shown.map((each) => {
      const key = `${each.namespace}/${each.name}`;
      let row = this.#rows.get(key);
      if (!row) {
        const pick = (isPicked) => this.#pick(key, isPicked);
        row = rowOf(columnsFor(this.frame.mode), each, pick, this.#picked.has(key));
        this.#rows.set(key, row);
      }
      row.update(each);
      return row.element;
    });
    const there = this.body.children;
    if (wanted.length === there.length && wanted.every((row, i) => row === there[i])) return;
    // Moving a row takes the focus out of it.
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    this.body.replaceChildren(...wanted);
    if (focused?.isConnected) focused.focus({ preventScroll: true });
    if (this.#rows.size > 4 * PAGE_SIZE) this.#forgetRows(new Set(wanted));
  }

  #forgetRows(shown) {
    for (const [key, row] of this.#rows) if (!shown.has(row.element)) this.#rows.delete(key);
  }

  #renderInstead(rows) {
    this.filters.hidden = this.all.isLoaded && this.all.total === 0;
    this.box.hidden = rows === 0;
    this.instead.hidden = rows > 0;
    // It must not be made anew while nothing about it changes: it may hold the focus.
    const kind = this.all.isLoaded
      ? this.all.total
        ? "nothing fits"
        : "empty"
      : this.all.error
        ? this.all.error.message
        : "loading";
    if (rows > 0 || this.instead.dataset.kind === kind) return;
    this.instead.dataset.kind = kind;
    this.instead.className = kind === "empty" ? "first-visit" : "panel";
    if (kind === "loading")
      fill(
        this.instead,
        h(
          "div",
          { class: "panel-body column", "aria-label": "Loading", "aria-busy": "true" },
          Array.from({ length: 8 }, () => skeleton(30)),
        ),
      );
    else if (kind === "empty") fill(this.instead, emptyList(this.frame.mode));
    else if (kind === "nothing fits")
      fill(
        this.instead,
        nothingFits(() => this.#clear()),
      );
    else
      fill(
        this.instead,
        failure(this.all.error, () => this.all.load()),
      );
  }

  #clear() {
    this.search.value = this.stateChoice.value = this.namespaceChoice.value = "";
    this.#ask({ q: "", state: "", namespace: "" });
    this.search.focus();
  }

  #renderPager(page, pages, fitting) {
    this.pager.hidden = pages < 2;
    const text = `${(page - 1) * PAGE_SIZE + 1}–${Math.min(page * PAGE_SIZE, fitting)} of ${count(fitting)}`;
    if (this.pager.dataset.text === text) return;
    this.pager.dataset.text = text;
    const to = (number, label) =>
      h("button", {
        type: "button",
        text: label,
        disabled: number < 1 || number > pages,
        on: { click: () => this.#turn(number, label) },
      });
    this.pager.replaceChildren();
    append(this.pager, [to(page - 1, "Previous"), h("span", { text }), to(page + 1, "Next")]);
  }

  #turn(number, label) {
    this.#ask({ page: number });
    const again = [...this.pager.children].find(
      (child) => child.textContent === label && !child.disabled,
    );
    (again ?? this.pager.querySelector("button:not([disabled])"))?.focus();
    this.box.scrollIntoView({ block: "nearest" });
  }

  #pick(key, isPicked) {
    if (isPicked) this.#picked.add(key);
    else this.#picked.delete(key);
    this.#renderCompare();
  }

  #renderCompare() {
    const ids = [...this.#picked];
    this.compare.textContent = ids.length ? `Compare ${ids.length}` : "Compare";
    this.compare.classList.toggle("primary", ids.length > 1);
    this.compare.setAttribute("href", toCompare(ids));
  }
}
