// The models: a list to choose from, and all about the chosen one.

import { bytes, el, milliseconds } from "./dom.js";
import { nameOf } from "./names.js";

const TASKS = { classify: "Classify", detect: "Detect", segment: "Segment", pose: "Pose", obb: "Rotated boxes", pipeline: "Pipelines" };

/** Whether the page knows what to do with a model's answers. */
export const usable = (model) => model.task in TASKS;

/** List the models by task. `choose(name)` is called when another is picked. */
export function showModels(element, models, chosen, choose) {
  const shown = JSON.stringify([models, chosen]);
  if (element.dataset.shown === shown) return; // whoever reads or scrolls the list is left alone
  element.dataset.shown = shown;
  const focused = element.contains(document.activeElement);
  const groups = Object.entries(TASKS)
    .map(([task, title]) => [task, title, models.filter((model) => model.task === task)])
    .filter(([, , those]) => those.length);
  element.replaceChildren(
    ...groups.map(([task, title, those]) =>
      el(
        "div",
        { className: "group" },
        el("h3", { id: `task-${task}` }, title),
        ...those.map((model) => entry(model, model.name === chosen, choose)),
      ),
    ),
  );
  if (!groups.length) element.append(el("p", { className: "note" }, "No model is loaded."));
  const current = element.querySelector("input:checked");
  if (focused) current?.focus({ preventScroll: true });
  // On a phone the list is a row that scrolls; on a desk this moves nothing.
  if (current) element.scrollLeft = current.parentElement.offsetLeft - element.offsetLeft - 40;
}

function entry(model, checked, choose) {
  const radio = el("input", { type: "radio", name: "model", value: model.name, checked });
  radio.addEventListener("change", () => choose(model.name));
  const ready = model.state === "ready";
  return el(
    "label",
    { className: "model", title: model.title ?? "" },
    radio,
    el("span", { className: "label" }, model.name),
    model.default ? el("span", { className: "tag" }, "default") : null,
    ready ? null : el("span", { className: `tag ${model.state}` }, model.state.replace("_", " ")),
  );
}

/** Why a model cannot be asked now; "" where it can. */
export function whyNot({ state, reason, card }) {
  if (state === "ready" || state === "on_demand") return "";
  return state === "loading"
    ? `${card.name} is being loaded; it is asked as soon as it is ready.`
    : `${card.name} is not served: ${reason}`;
}

/** Show a model's card, and how it runs. */
export function showFacts(element, { card, state, reason, refused, provider, profile }) {
  if (!card) {
    element.replaceChildren(el("p", { className: "note" }, reason ?? "Its card cannot be read."));
    return;
  }
  const rows = card.task === "pipeline" ? factsOfPipeline(card, state, reason) : [
    ["Name", `${card.name}, version ${card.version}`],
    ["Licence", licences(card)],
    ["Size", bytes(card.size)],
    ["Precision", card.precision],
    ["Input", `${card.recipe.width} × ${card.recipe.height}, ${card.recipe.resize.replaceAll("_", " ")}`],
    ["State", refused ? `${state}; ${refused}` : reason ? `${state}: ${reason}` : state],
    ["Runs on", provider],
    ["A run", profile && `${milliseconds(1000 * profile.seconds[1])} ms, batches of up to ${profile.max_batch}`],
  ];
  const title = card.homepage
    ? el("a", { href: card.homepage, target: "_blank", rel: "noreferrer" }, card.title)
    : card.title;
  element.replaceChildren(
    el("p", { className: "title" }, title),
    el(
      "dl",
      {},
      ...rows
        .filter(([, value]) => value)
        .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
    ),
    card.labels ? labels(card) : null,
  );
}

function factsOfPipeline({ name, detect, crops, second }, state, reason) {
  const cut = `each box and ${Math.round(100 * crops.pad)} % of it on each side, at most ${crops.max_crops}`;
  return [
    ["Name", name],
    ["Finds", `${detect.classes.join(", ") || "all classes"}, with ${detect.model}`],
    ["Cuts out", cut],
    ["Asks", `${second.model} to ${second.task} each`],
    ["State", reason ? `${state}: ${reason}` : state],
  ];
}

function licences({ licence, accepted = [] }) {
  const [code, weights] = [licence.code, licence.weights].map((name) => name.replace("LicenseRef-", ""));
  const names = code === weights ? weights : `${weights} (weights), ${code} (code)`;
  return accepted.length ? `${names}; accepted: ${accepted.join(", ")}` : names;
}

function labels(card) {
  const list = el("ol", { start: 0 }, ...card.labels.map((label, class_id) => el("li", { dir: "auto" }, nameOf({ label, class_id }))));
  const find = el("input", { type: "search", placeholder: "Find a label", "aria-label": "Find a label" });
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    card.labels.forEach((label, i) => (list.children[i].hidden = !label.toLowerCase().includes(wanted)));
  });
  const count = card.labels.length;
  return el(
    "details",
    {},
    el("summary", {}, `${count.toLocaleString("en")} ${count === 1 ? "label" : "labels"}`),
    count > 12 ? find : null,
    list,
  );
}
