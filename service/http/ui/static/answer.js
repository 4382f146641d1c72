// An answer beside its image: what was found, and where the time went.

import { el, milliseconds, percent } from "./dom.js";
import { nameOf, shareOf } from "./names.js";
import { colourOf, STAGES } from "./palette.js";

/** An embedding in words: its size, and its length. */
const featuresOf = ({ embedding }) =>
  `${embedding.length} numbers, of length ${Math.hypot(...embedding).toPrecision(4)}`;

/** List predictions; `point(index)` is called when one is pointed at or focused, with -1 when it is left. */
export function showPredictions(list, answer, visible, point) {
  const items = visible.map((index) => entry(answer.result.predictions[index], index, point));
  items.forEach((item, at) => {
    item.tabIndex = at ? -1 : 0; // one stop of Tab; arrows go up and down
    item.addEventListener("keydown", ({ key }) => {
      const next = items[at + ({ ArrowDown: 1, ArrowUp: -1 }[key] ?? 0)];
      if (next && next !== item) next.focus();
    });
  });
  list.replaceChildren(...items);
  list.classList.toggle("none", Boolean(answer) && !items.length);
}

function entry(prediction, index, point) {
  if (prediction.embedding) return el("li", {}, el("span", { className: "label" }, featuresOf(prediction)));
  const share = shareOf(prediction);
  const swatch = el("i", { className: "swatch" });
  const fill = el("i");
  swatch.style.background = fill.style.background = colourOf(prediction, index);
  fill.style.width = `${100 * share}%`;
  const item = el(
    "li",
    { title: prediction.box ? `Box ${prediction.box.map((value) => Math.round(value)).join(", ")}` : "" },
    swatch,
    el("span", { className: "label", dir: "auto" }, nameOf(prediction)),
    el("span", { className: "share" }, percent(share)),
    el("span", { className: "meter", "aria-hidden": "true" }, fill),
    ofCrop(prediction),
  );
  item.dataset.index = index;
  for (const event of ["pointerenter", "focus"]) item.addEventListener(event, () => point(index));
  for (const event of ["pointerleave", "blur"]) item.addEventListener(event, () => point(-1));
  return item;
}

/** What a pipeline's second model said of an object's crop, beyond the class that names it; null of other predictions. */
function ofCrop({ second, error, skipped }) {
  if (error || skipped) return el("span", { className: "second" }, error?.detail ?? `not asked: ${skipped}`);
  if (!second) return null;
  const found = second.predictions.slice(second.task === "classify" ? 1 : 0, 4);
  const words = found.map((one) => (one.embedding ? featuresOf(one) : `${nameOf(one)} ${percent(shareOf(one))}`));
  const text = words.join(", ") || (second.task === "classify" ? "" : "nothing found");
  return text ? el("span", { className: "second", dir: "auto" }, text) : null;
}

/** Mark the entry of one prediction. */
export function mark(list, index) {
  for (const item of list.children) item.classList.toggle("on", Number(item.dataset.index) === index);
}

/** An answer in a sentence, for those who hear it. */
export function inWords(result, visible) {
  const found = visible.map((index) => result.predictions[index]);
  if (!found.length) return "Nothing was found.";
  if (found[0].embedding) return `${featuresOf(found[0])}.`;
  const first = found.slice(0, 5).map((prediction) => `${nameOf(prediction)} ${percent(shareOf(prediction))}`);
  const more = found.length > 5 ? `, and ${found.length - 5} more` : "";
  return `${first.join(", ")}${more}.`;
}

/** The stages of an answer as one bar and its legend. `total` is the server's own clock, `roundtrip` the browser's. */
export function showTiming(element, answer) {
  if (!answer) {
    element.replaceChildren();
    return;
  }
  const { stages, roundtrip } = answer;
  const { total = 0, ...parts } = stages;
  const named = Object.entries(parts).filter(([name]) => name in STAGES);
  const bar = el("div", { className: "stages", role: "img" });
  bar.setAttribute("aria-label", named.map(([name, ms]) => `${name} ${milliseconds(ms)} ms`).join(", "));
  const legend = el("dl");
  for (const [name, ms] of named) {
    const part = el("i", { title: `${name} ${milliseconds(ms)} ms` });
    part.style.flexGrow = ms;
    part.style.background = STAGES[name];
    bar.append(part);
    const swatch = el("i", { className: "swatch" });
    swatch.style.background = STAGES[name];
    legend.append(el("div", {}, el("dt", {}, swatch, name), el("dd", {}, milliseconds(ms))));
  }
  const outside = Math.max(0, roundtrip - total);
  legend.append(
    el(
      "div",
      { title: "Between this page and the server, and in the browser" },
      el("dt", {}, "network, browser"),
      el("dd", {}, milliseconds(outside)),
    ),
  );
  element.replaceChildren(bar, legend);
}
