// The options of a model's task: which there are, their controls, and the query that they make.

import { el } from "./dom.js";

const SCORE = {
  name: "score_threshold",
  label: "Score at least",
  value: 0.25,
  min: 0,
  max: 1,
  step: 0.01,
  digits: 2,
  hint: "Objects with a lower score are left out.",
};
const IOU = {
  name: "iou_threshold",
  label: "Overlap at most (IoU)",
  value: 0.45,
  min: 0,
  max: 1,
  step: 0.01,
  digits: 2,
  hint: "Of two boxes of one class that overlap more, the better stays.",
};
const MAXIMUM = {
  name: "max_detections",
  label: "Objects at most",
  value: 100,
  min: 1,
  max: 300,
  step: 1,
  digits: 0,
};
const TILES = {
  name: "tiles",
  label: "In tiles",
  value: "off",
  choices: ["off", "auto", "320x320", "640x640", "1280x1280"],
  without: "off", // is not sent
  hint: "Look for small objects in parts of the image: of the size of the model's input (auto), or of so many pixels.",
};
const OPACITY = { name: "opacity", label: "Opacity", value: 0.5, min: 0, max: 1, step: 0.05, digits: 2, view: true };
const HEAT = {
  name: "heatmap",
  label: "Show where it looked",
  value: false,
  hint: "The class activation map of the best class.",
};
const ANSWER = {
  name: "answer",
  label: "Answer with",
  value: "classes",
  choices: ["classes", "features"],
  route: true, // chooses what is asked; it is no option of the query
  hint: "The classes, or the features by which the model decides.",
};
const NORMALIZE = {
  name: "normalize",
  label: "Of length 1",
  value: false,
  hint: "Scale the features so that a dot product is the cosine.",
};
const FORMS = ["rle", "png", "polygon", "none"];

const has = (card, output) => card.outputs.some(({ name }) => name === output);

/** The options that make a difference to this model; `view` marks those that the server never hears of. */
export function optionsOf(card, answer = "classes") {
  // What is asked where nothing was chosen: what the model's card says, or that of a pipeline, whose detector it is.
  const usual = { ...card.nms_options, ...card.detect?.options };
  return choicesOf(card, answer).map((option) => {
    const value = usual[option.name];
    return value === undefined || option.choices ? option : { ...option, value, max: Math.max(option.max, value) };
  });
}

function choicesOf(card, answer) {
  if (card.task === "classify") {
    const choice = has(card, "embedding") ? [ANSWER] : [];
    if (choice.length && answer === "features") return [...choice, NORMALIZE];
    const top = {
      name: "top_k",
      label: "Classes",
      value: 5,
      min: 1,
      max: Math.min(20, card.labels.length),
      step: 1,
      digits: 0,
    };
    return has(card, "activation") ? [...choice, top, HEAT, OPACITY] : [...choice, top];
  }
  if (card.task === "pipeline") {
    const tiles = card.detect.options.tiles ? [] : [TILES];
    const masks = card.second.task === "segment" ? [OPACITY] : [];
    return [SCORE, MAXIMUM, ...tiles, ...masks];
  }
  const objects = card.nms ? [SCORE, IOU, MAXIMUM] : [SCORE, MAXIMUM];
  if (["pose", "obb"].includes(card.task)) return objects;
  if (card.task === "detect") return [...objects, TILES];
  const mask = {
    name: "mask",
    label: "Mask",
    value: has(card, "alpha") ? "png" : "rle",
    choices: FORMS,
    hint: "The form in which masks are answered.",
  };
  return [...(has(card, "boxes") ? [...objects, TILES] : []), mask, OPACITY];
}

export class Options {
  #values = {}; // what was chosen, kept from model to model
  #options = [];
  #card = null;

  /** @param form where the controls go; `changed(option)` is called at every change */
  constructor(form, changed) {
    this.form = form;
    this.changed = changed;
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  show(card) {
    this.#card = card;
    this.#options = optionsOf(card, this.#values.answer);
    this.form.replaceChildren(...this.#options.map((option) => this.#control(option)));
  }

  get(name) {
    const option = this.#options.find((one) => one.name === name);
    return option && this.#value(option);
  }

  /** The task that is asked: the card's, or another that its model answers. */
  get task() {
    return this.get("answer") === "features" ? "embed" : this.#card.task;
  }

  /** The query that goes with a request, beside the model. */
  query() {
    const query = {};
    for (const option of this.#options) {
      if (option.view || option.route || [false, option.without].includes(this.#value(option))) continue;
      query[option.name] = String(this.#value(option));
      if (option === HEAT) query.localize = "true";
    }
    return query;
  }

  #value(option) {
    const chosen = this.#values[option.name];
    if (chosen === undefined) return option.value;
    return option.max === undefined ? chosen : Math.min(chosen, option.max);
  }

  #control(option) {
    const id = `option-${option.name}`;
    const value = this.#value(option);
    const set = (chosen) => {
      this.#values[option.name] = chosen;
      if (option.route) {
        this.show(this.#card); // the other answer has other options
        document.getElementById(id).focus();
      }
      this.changed(option);
    };
    const label = el("label", { htmlFor: id, title: option.hint ?? "" }, option.label);
    if (option.choices) {
      const select = el(
        "select",
        { id },
        ...option.choices.map((choice) => el("option", { value: choice, selected: choice === value }, choice)),
      );
      select.addEventListener("change", () => set(select.value));
      return el("div", { className: "option row" }, label, select);
    }
    if (typeof value === "boolean") {
      const box = el("input", { id, type: "checkbox", checked: value, role: "switch" });
      box.addEventListener("change", () => set(box.checked));
      return el("div", { className: "option row" }, label, box);
    }
    const { min, max, step, digits } = option;
    const shown = el("output", { htmlFor: id }, value.toFixed(digits));
    const range = el("input", { id, type: "range", min, max, step });
    range.value = value; // after its bounds, which would clip it
    const fill = () => range.style.setProperty("--fill", `${(100 * (range.value - min)) / (max - min || 1)}%`);
    range.addEventListener("input", () => {
      shown.value = range.valueAsNumber.toFixed(digits);
      fill();
      set(range.valueAsNumber);
    });
    fill();
    return el("div", { className: "option" }, el("div", { className: "row" }, label, shown), range);
  }
}
