// Five small charts of the last ten minutes, on one clock. uPlot is loaded by the page, before this module.

import { milliseconds, number } from "./format.js";

const KEPT = 600; // samples, one a second
const LEAST = 60; // s that a chart spans
const HEIGHT = 132;
const EVERY = { active: number, starts: number, chunks: number, errors: number, ttft_p50: milliseconds, ttft_p95: milliseconds };

// Names of a chart's lines are columns of the feed; colours are console.css's.
const CHARTS = [
  { title: "Active streams", lines: [["active", "--line-1"]] },
  { title: "Starts per second", lines: [["starts", "--line-1"]] },
  { title: "First token", lines: [["ttft_p50", "--line-1"], ["ttft_p95", "--line-2", "p95"]] },
  { title: "Chunks per second", lines: [["chunks", "--line-1"]] },
  { title: "Errors per second", lines: [["errors", "--line-3"]] },
];

export class Charts {
  #root;
  #columns = [];
  #samples = [];
  #plots = [];

  constructor(root) {
    this.#root = root;
    new ResizeObserver(() => this.#resize()).observe(root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#build());
  }

  // All that the gateway remembers: at the start, and after each reconnection.
  reset({ columns, samples }) {
    this.#columns = columns;
    this.#samples = samples;
    if (this.#plots.length === 0) this.#build();
    this.#draw();
  }

  add(sample) {
    const last = this.#samples.at(-1);
    if (!sample || (last && sample[0] <= last[0])) return;
    this.#samples.push(sample);
    if (this.#samples.length > KEPT) this.#samples.shift();
    this.#draw();
  }

  #build() {
    this.#plots.forEach((plot) => plot.uplot.destroy());
    this.#root.replaceChildren();
    this.#plots = CHARTS.map((chart) => this.#plot(chart));
    this.#draw();
  }

  #plot({ title, lines }) {
    const figure = this.#root.appendChild(document.createElement("figure"));
    const caption = figure.appendChild(document.createElement("figcaption"));
    caption.append(document.createElement("span"), document.createElement("output"));
    caption.firstChild.textContent = title;
    const room = figure.appendChild(document.createElement("div"));
    const plot = { room, lines, output: caption.lastChild };
    plot.uplot = new uPlot(options(lines, room.clientWidth, (index) => tell(plot, index)), columnsOf(lines), room);
    return plot;
  }

  #draw() {
    const times = this.#samples.map((sample) => sample[0]);
    const until = times.at(-1) ?? Date.now() / 1000;
    const from = Math.min(until - LEAST, Math.max(until - KEPT, times[0] ?? until)); // a young gateway has a short past
    for (const plot of this.#plots) {
      const values = plot.lines.map(([name]) => this.#column(name));
      plot.uplot.setData([times, ...values], false);
      plot.uplot.batch(() => {
        plot.uplot.setScale("x", { min: from, max: until });
        plot.uplot.setScale("y", { min: 0, max: top(values) });
      });
      tell(plot, plot.uplot.cursor.idx);
    }
  }

  #column(name) {
    const index = this.#columns.indexOf(name);
    return this.#samples.map((sample) => sample[index]);
  }

  #resize() {
    for (const { room, uplot } of this.#plots) uplot.setSize({ width: room.clientWidth, height: HEIGHT });
  }
}

// The values under the cursor, or the last ones, beside the title.
function tell({ uplot, lines, output }, index) {
  if (!uplot) return;
  const column = (line) => uplot.data[line + 1];
  output.textContent = lines
    .map(([name, , label], line) => `${label ? `${label} ` : ""}${EVERY[name](column(line)[index ?? column(line).length - 1])}`)
    .join(" · ");
}

function options(lines, width, moved) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const grid = { stroke: colour("--grid"), width: 1 };
  const font = "11px system-ui, sans-serif";
  const axis = { stroke: colour("--dim"), grid, ticks: { show: false }, font };
  const show = EVERY[lines[0][0]];
  const line = ([name, shade, label]) => ({
    label: label ?? name, stroke: colour(shade), width: 1.5, points: { show: lonely, size: 4, fill: colour(shade) },
    fill: lines.length === 1 ? `${colour(shade)}22` : undefined,
  });
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    padding: [8, 8, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: "console" } },
    scales: { x: { time: true, auto: false }, y: { auto: false } },
    series: [{}, ...lines.map(line)],
    axes: [
      { ...axis, size: 22, space: 60, values: (_, ticks) => ticks.map(clock) },
      { ...axis, size: 52, space: 34, values: (_, ticks) => ticks.map((tick) => (tick ? show(tick) : "0")) },
    ],
    hooks: { setCursor: [(uplot) => moved(uplot.cursor.idx)] },
  };
}

// A second without a first token leaves a gap on either side: lines need two neighbours, so such values are dots.
function lonely(uplot, series) {
  return series > 0 && uplot.data[series].some((value) => value === null);
}

function clock(value) {
  return new Date(value * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: value % 60 ? "2-digit" : undefined });
}

function columnsOf(lines) {
  return [[], ...lines.map(() => [])];
}

// The upper end of an axis: a tenth above the largest value, and never nothing.
function top(values) {
  const largest = Math.max(0, ...values.flat().filter((value) => value !== null && value !== undefined));
  return largest > 0 ? largest * 1.1 : 1;
}
