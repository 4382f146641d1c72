// Small charts in SVG: lines over time, and a histogram. Sizes follow the element; nothing is fetched.

import { el } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 100;

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** A tile: a title, its figure now, and a plot with the highest value at its top. */
class Tile {
  constructor(title, unit) {
    this.figure = el("span", { className: "figure" }, "–");
    this.top = el("span", { className: "peak" });
    this.legend = el("div", { className: "legend" });
    this.axis = el("div", { className: "axis", "aria-hidden": "true" });
    this.plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    for (const y of [0, HEIGHT / 2, HEIGHT])
      this.plot.append(svg("line", { x1: 0, x2: WIDTH, y1: y, y2: y, class: "grid" }));
    this.element = el(
      "section",
      { className: "tile" },
      el("header", {}, el("h2", {}, title), this.legend),
      el("p", {}, this.figure, " ", el("span", { className: "unit" }, unit)),
      el("div", { className: "plot" }, this.plot, this.top),
      this.axis,
    );
    this.title = title;
    this.unit = unit;
  }

  say(figure, text) {
    this.figure.textContent = figure;
    this.plot.setAttribute("aria-label", `${this.title}: ${text}`);
  }
}

export class Lines extends Tile {
  /** @param lines [[name, class]], the first one filled below */
  constructor(title, unit, lines) {
    super(title, unit);
    this.area = svg("path", { class: `area ${lines[0][1]}` });
    this.paths = lines.map(([, style]) => svg("path", { class: `line ${style}` }));
    this.plot.append(this.area, ...this.paths);
    this.axis.append("2 min ago", el("span", { className: "grow" }), "now");
    if (lines.length > 1)
      this.legend.append(
        ...lines.map(([name, style]) => el("span", {}, el("i", { className: `swatch ${style}` }), name)),
      );
  }

  /** @param series one array of numbers (null: nothing to show) per line, oldest first; `length` fills the width */
  update(series, length, write = (value) => value.toFixed(1)) {
    const top = ceiling(Math.max(0, ...series.flat().filter((value) => value !== null)));
    this.top.textContent = top.toLocaleString("en");
    const x = (i, count) => (WIDTH * (i + length - count)) / (length - 1);
    const y = (value) => HEIGHT - (HEIGHT * value) / top;
    series.forEach((values, line) => {
      let path = "";
      let pen = false;
      values.forEach((value, i) => {
        if (value !== null) path += `${pen ? "L" : "M"}${x(i, values.length).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = value !== null;
      });
      this.paths[line].setAttribute("d", path);
      if (line === 0) {
        const whole = values
          .map((value, i) => `L${x(i, values.length).toFixed(1)} ${y(value ?? 0).toFixed(1)}`)
          .join("");
        const from = x(0, values.length).toFixed(1);
        this.area.setAttribute("d", values.length ? `M${from} ${HEIGHT}${whole}L${WIDTH} ${HEIGHT}Z` : "");
      }
    });
    const now = series.map((values) => values.at(-1) ?? null);
    const figure = now[0] === null ? "–" : write(now[0]);
    this.say(
      figure,
      now[0] === null
        ? "nothing yet"
        : `${now.map((value) => (value === null ? "none" : write(value))).join(", ")} ${this.unit}`,
    );
  }
}

export class Histogram extends Tile {
  /** @param sizes [[bound, count]], rising */
  update(sizes, figure) {
    const last = sizes.findLastIndex(([, count]) => count > 0);
    const shown = sizes.slice(0, Math.max(4, last + 1));
    const most = Math.max(1, ...shown.map(([, count]) => count));
    this.plot.querySelectorAll("rect").forEach((bar) => bar.remove());
    const step = WIDTH / Math.max(shown.length, 1);
    shown.forEach(([, count], i) => {
      const height = (HEIGHT * count) / most;
      this.plot.append(
        svg("rect", { x: i * step + step * 0.15, width: step * 0.7, y: HEIGHT - height, height, class: "bar" }),
      );
    });
    this.axis.replaceChildren(...shown.map(([bound]) => el("span", {}, bound === Infinity ? "more" : `≤ ${bound}`)));
    this.top.textContent = last < 0 ? "" : Math.round(most).toLocaleString("en");
    const words = shown.filter(([, count]) => count).map(([bound, count]) => `${Math.round(count)} of up to ${bound}`);
    this.say(figure, words.join(", ") || "nothing yet");
  }
}

/** The next of 1, 2, 5, 10, ... */
export function ceiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value * 0.999999) * power;
}
