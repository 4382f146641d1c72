// The live page: /metrics once a second, while it is looked at.

import { getMetrics } from "./api.js";
import { Histogram, Lines } from "./chart.js";
import { el, milliseconds, write } from "./dom.js";
import { between, select, snapshot } from "./metrics.js";

const EVERY = 1000; // milliseconds
const WINDOW = 10; // seconds over which percentiles are taken
const SHOWN = 120; // seconds

export class Live {
  #looks = []; // {time in ms, models}, oldest first
  #timer = 0;
  #on = false;

  constructor({ charts, model, note, table }) {
    this.model = model;
    this.note = note;
    this.rows = table.querySelector("tbody");
    this.rate = new Lines("Request rate", "requests/s", [
      ["all", "one"],
      ["errors", "bad"],
    ]);
    this.latency = new Lines("Latency", "ms, median", [
      ["p50", "one"],
      ["p90", "two"],
      ["p99", "three"],
    ]);
    this.batch = new Histogram("Batch size", "images in a run");
    this.depth = new Lines("Queue depth", "images under way", [["depth", "one"]]);
    charts.append(...[this.rate, this.latency, this.batch, this.depth].map((tile) => tile.element));
    model.addEventListener("change", () => this.#redraw());
    document.addEventListener("visibilitychange", () => this.#on && this.start());
  }

  start() {
    this.#on = true;
    clearTimeout(this.#timer);
    if (!document.hidden) this.#look();
  }

  stop() {
    this.#on = false;
    clearTimeout(this.#timer);
  }

  async #look() {
    const began = performance.now();
    try {
      const models = snapshot(await getMetrics());
      this.#looks.push({ time: performance.now(), models });
      if (this.#looks.length > SHOWN + WINDOW) this.#looks.shift();
      write(this.note, "Every second");
      this.#redraw();
    } catch (problem) {
      write(this.note, problem.message);
    }
    clearTimeout(this.#timer);
    if (this.#on && !document.hidden)
      this.#timer = setTimeout(() => this.#look(), Math.max(0, EVERY - (performance.now() - began)));
  }

  /** What a model (or all, "") did up to look `at`: rates since the look before, percentiles over the window. */
  #at(at, name) {
    const now = this.#looks[at];
    const since = (from) => between(select(from.models, name), select(now.models, name), (now.time - from.time) / 1000);
    const before = this.#looks[at - 1]; // long ago, where the page was not looked at meanwhile
    const start = this.#looks.find((look) => now.time - look.time <= 1000 * WINDOW + EVERY / 2);
    return { ...since(start === now ? before : start), now: since(before) };
  }

  #redraw() {
    if (this.#looks.length < 2) return;
    const name = this.model.value;
    const first = Math.max(1, this.#looks.length - SHOWN);
    const points = [];
    for (let at = first; at < this.#looks.length; at++) points.push(this.#at(at, name));
    const last = points.at(-1);
    const ms = (value) => value && 1000 * value;
    const failed = points.some(({ now }) => now.errors);
    const errors = points.map(({ now }) => (failed ? now.errors : null));
    this.rate.update([points.map(({ now }) => now.rate), errors], SHOWN);
    this.latency.update(
      ["p50", "p90", "p99"].map((q) => points.map((point) => ms(point[q]))),
      SHOWN,
      milliseconds,
    );
    this.batch.update(last.sizes, last.batch === null ? "–" : last.batch.toFixed(1));
    this.depth.update([points.map(({ depth }) => depth)], SHOWN, (value) => value.toFixed(0));
    this.#tabulate();
  }

  #tabulate() {
    const { models } = this.#looks.at(-1);
    const names = Object.keys(models).filter(Boolean).sort();
    const known = [...this.model.options].map(({ value }) => value);
    this.model.append(
      ...names.filter((name) => !known.includes(name)).map((name) => el("option", { value: name }, name)),
    );
    const number = (value, write) => (value === null ? "–" : write(value));
    this.rows.replaceChildren(
      ...names.map((name) => {
        const { rate, errors, p50, p99, batch, depth } = this.#at(this.#looks.length - 1, name);
        const answered = Object.entries(models[name].codes).reduce(
          (sum, [code, count]) => sum + (Number(code) < 400 ? count : 0),
          0,
        );
        const cells = [
          rate.toFixed(1),
          errors.toFixed(1),
          number(p50, (s) => milliseconds(1000 * s)),
          number(p99, (s) => milliseconds(1000 * s)),
          number(batch, (size) => size.toFixed(1)),
          depth.toFixed(0),
          answered.toLocaleString("en"),
        ];
        return el("tr", {}, el("th", { scope: "row" }, name), ...cells.map((cell) => el("td", {}, cell)));
      }),
    );
  }
}
