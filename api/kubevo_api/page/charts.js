// Charts: one class around Plotly, which the server takes from the installed plotly package. It is
// fetched when the first chart is wanted; the list never waits for it. A chart is drawn in place:
// new data keeps the zoom, the legend's choices and the size.

import { fill, h } from "./dom.js";
import { message } from "./parts.js";
import { onChange } from "./theme.js";

const SOURCE = "/static/plotly.min.js";
const REDRAW_MILLISECONDS = 250;
const CONFIG = {
  displaylogo: false,
  doubleClickDelay: 400,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
  scrollZoom: false,
};
const TOKENS = [
  "ink",
  "ink-2",
  "ink-3",
  "line",
  "surface",
  "raised",
  "accent",
  "accent-soft",
  "bad",
  "wait",
];
// For curves side by side; chosen to differ in lightness too, for eyes that do not tell all hues.
const SERIES = {
  light: ["#0f766e", "#c2410c", "#4338ca", "#a16207", "#be185d", "#0369a1", "#4d7c0f", "#6b21a8"],
  dark: ["#2dd4bf", "#fb923c", "#a5b4fc", "#facc15", "#f472b6", "#38bdf8", "#a3e635", "#d8b4fe"],
};

let loading = null;

function plotly() {
  loading ??= new Promise((done, failed) => {
    const script = h("script", { src: SOURCE });
    script.onload = () => done(window.Plotly);
    script.onerror = () => {
      loading = null;
      failed(new Error("the chart library did not load"));
    };
    document.head.append(script);
  });
  return loading;
}

/** Return the style sheet's colours as Plotly wants them, for the theme that is shown now. */
export function colours() {
  const probe = h("span", { hidden: true });
  document.body.append(probe);
  const found = {};
  for (const token of TOKENS) {
    probe.style.color = `var(--${token})`;
    found[token] = getComputedStyle(probe).color;
  }
  probe.remove();
  found.series = SERIES[document.documentElement.dataset.theme] ?? SERIES.light;
  return found;
}

/** Return `colour` as seen through: for ribbons. */
export function through(colour, part) {
  const [r, g, b] = colour.startsWith("#")
    ? [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16))
    : colour.match(/[\d.]+/g);
  return `rgba(${r}, ${g}, ${b}, ${part})`;
}

/** Return text that Plotly shows as it is: it takes some markup in labels. */
export function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

export class Chart {
  #build = null;
  #timer = null;
  #drawnAt = -REDRAW_MILLISECONDS;
  #isDrawn = false;
  #isWanted = false;
  #isClosed = false;
  #observer;
  #stop;

  /** `label` says what is drawn; `caption` (sr-only) holds the same in words, see `describe`. */
  constructor({ label, class: name, onClick = null, onZoom = null }) {
    this.plot = h("div", { class: `chart ${name}`, role: "img", "aria-label": label });
    this.caption = h("figcaption", { class: "sr-only" });
    this.element = h("figure", {}, this.plot, this.caption);
    this.onClick = onClick;
    this.onZoom = onZoom;
    this.#observer = new ResizeObserver(
      () => this.#isDrawn && window.Plotly.Plots.resize(this.plot),
    );
    this.#stop = onChange(() => this.#build && this.#soon());
  }

  /** Draw what `build(colours)` returns ({traces, layout}), now or shortly. */
  draw(build) {
    this.#build = build;
    this.#soon();
  }

  /** Say in words what the chart shows. */
  describe(text) {
    this.caption.textContent = text;
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#observer.disconnect();
    this.#stop();
    if (this.#isDrawn) window.Plotly.purge(this.plot);
  }

  // One drawing at a time, and never the last one lost: what is asked for meanwhile comes after it.
  #soon() {
    this.#isWanted = true;
    if (this.#timer !== null) return;
    const wait = Math.max(0, this.#drawnAt + REDRAW_MILLISECONDS - performance.now());
    this.#timer = setTimeout(async () => {
      this.#isWanted = false;
      try {
        await this.#now();
      } finally {
        this.#timer = null;
        if (this.#isWanted && !this.#isClosed) this.#soon();
      }
    }, wait);
  }

  async #now() {
    let library;
    try {
      library = await plotly();
    } catch (error) {
      fill(this.plot, message("No chart", `${error.message}: reload the page.`, { small: true }));
      return;
    }
    // Hidden or gone: it has no size to be drawn in.
    if (this.#isClosed || !this.plot.isConnected) return;
    const palette = colours();
    const { traces, layout } = this.#build(palette);
    await library.react(
      this.plot,
      traces,
      merged(frame(palette, this.plot.clientWidth), layout),
      CONFIG,
    );
    this.#drawnAt = performance.now();
    if (this.#isClosed) library.purge(this.plot);
    if (this.#isClosed || this.#isDrawn) return;
    this.#isDrawn = true;
    this.#observer.observe(this.plot);
    if (this.onClick) this.plot.on("plotly_click", ({ points }) => this.onClick(points[0]));
    if (this.onZoom) this.plot.on("plotly_relayout", (change) => this.onZoom(change));
  }
}

/** Return a drawing that says in words why there is nothing to draw. */
export function nothing(text, palette) {
  const hidden = { visible: false };
  const said = {
    text,
    showarrow: false,
    xref: "paper",
    yref: "paper",
    x: 0.5,
    y: 0.5,
    font: { color: palette["ink-2"], size: 13 },
  };
  return { traces: [], layout: { xaxis: hidden, yaxis: hidden, annotations: [said] } };
}

function frame(palette, width) {
  const axis = {
    gridcolor: palette.line,
    linecolor: palette.line,
    tickcolor: palette.line,
    zeroline: false,
    automargin: true,
    title: { font: { size: 12, color: palette["ink-2"] }, standoff: 8 },
    tickfont: { color: palette["ink-2"] },
  };
  // Side by side, where six names would otherwise take six lines.
  const narrow = width < 480 ? { entrywidthmode: "fraction", entrywidth: 0.48 } : {};
  return {
    autosize: true,
    margin: { l: 48, r: 14, t: 12, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: palette.ink },
    hovermode: "closest",
    hoverlabel: {
      bgcolor: palette.raised,
      bordercolor: palette.line,
      font: { color: palette.ink },
    },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: palette["ink-3"], activecolor: palette.accent },
    legend: {
      orientation: "h",
      traceorder: "normal",
      x: 0,
      y: 1.02,
      yanchor: "bottom",
      font: { size: 12, color: palette["ink-2"] },
      ...narrow,
    },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    xaxis: axis,
    yaxis: { ...axis },
  };
}

function merged(base, over) {
  const found = { ...base };
  for (const [name, value] of Object.entries(over)) {
    const isTable = value && typeof value === "object" && !Array.isArray(value);
    found[name] = isTable && found[name] ? merged(found[name], value) : value;
  }
  return found;
}
