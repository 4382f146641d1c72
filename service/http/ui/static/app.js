// The page: what is chosen, what was answered, and how one leads to the other.

import { inWords, mark, showPredictions, showTiming } from "./answer.js";
import { address, getModel, getModels, getPipelines, getSamples, key, typeOf } from "./api.js";
import { Asker } from "./ask.js";
import { Camera, hasCamera } from "./camera.js";
import { Code } from "./code.js";
import { $, debounce, el, milliseconds, tabs, write } from "./dom.js";
import { takeFiles } from "./files.js";
import { shortcuts } from "./keyboard.js";
import { withKey } from "./keys.js";
import { Live } from "./live.js";
import { showFacts, showModels, usable, whyNot } from "./models.js";
import { Options } from "./options.js";
import { fetchSample, Strip } from "./images.js";
import { Stage } from "./stage.js";
import { Tensors } from "./tensors.js";

let models = [];
let model = null; // the name of the chosen one
let details = null; // of /v1/models/NAME, or of a pipeline
let answer = null; // to the last question
let readyModels = 0;
const samples = new Set(); // the sha256 of those in the strip

const say = (words) => write($("say"), words);
const stage = new Stage($("canvas"), (index) => mark($("predictions"), index));
const strip = new Strip($("strip"), show);
const code = new Code(say);
const camera = new Camera((on) => $("camera").setAttribute("aria-pressed", String(on)));
const live = new Live({ charts: $("charts"), model: $("live-model"), note: $("live-note"), table: $("live-table") });
const askSoon = debounce(ask, 120);
const tensors = new Tensors({
  model: $("tensors-model"),
  title: $("tensors-title"),
  note: $("tensors-note"),
  error: $("tensors-error"),
  panel: $("tensors-panel"),
});
const options = new Options($("options"), (option) => {
  render(); // at once, with what is known
  if (!option.view) askSoon();
});
const asker = new Asker((busy) => {
  $("busy").hidden = !busy;
  $("stage").setAttribute("aria-busy", String(busy));
});

// Models

async function refreshModels() {
  let wait = 3000;
  try {
    const loaded = await withKey(getModels);
    models = [...loaded, ...(await withKey(getPipelines))];
    const ready = loaded.filter(({ state }) => state === "ready").length;
    server(`${ready} of ${loaded.length} ready`, ready === loaded.length ? "good" : "warm");
    const now = models.find(({ name }) => name === model);
    const changed = now && details && (now.state !== details.state || now.version !== details.card?.version);
    showModels($("models"), models, model, choose);
    $("tab-tensors").hidden = !(await tensors.offer(models));
    if (!$("page-tensors").hidden) tensors.start();
    if (!now || !details || changed) await choose(now ? model : firstModel());
    if (ready === loaded.length && (details || !model)) wait = 15000;
    if (ready > readyModels) await addSamples(); // more models, more samples
    readyModels = ready;
  } catch (problem) {
    server(problem.status === 0 ? "Not reachable" : problem.message, "bad");
  }
  setTimeout(refreshModels, wait);
}

/** The one in the address; else one that is ready and draws boxes, the default of its task. */
function firstModel() {
  const wanted = location.hash.slice(1);
  const merit = ({ name, state, task, default: first }) =>
    8 * (name === wanted) + 4 * (state === "ready") + 2 * (task === "detect") + Boolean(first);
  return models.filter(usable).sort((a, b) => merit(b) - merit(a))[0]?.name;
}

async function choose(name) {
  if (!name) return;
  model = name;
  answer = null;
  asker.cancel();
  showModels($("models"), models, name, choose);
  try {
    const found = await withKey(() => detailsOf(models.find((one) => one.name === name), name));
    if (model !== name) return; // another was chosen meanwhile
    details = found;
  } catch (problem) {
    if (model !== name) return;
    details = null; // `refreshModels` tries again
    complain(problem.message);
    render();
    return;
  }
  showFacts($("facts"), details);
  if (details.card) options.show(details.card);
  if (!$("page-try").hidden) history.replaceState(null, "", `#${name}`);
  render();
  await ask();
}

/** Those of a model; or of a pipeline, with its detector's way to select objects. */
async function detailsOf(chosen, name) {
  if (chosen?.task !== "pipeline") return getModel(name);
  if (!models.some((one) => one.name === chosen.card?.detect.model)) return chosen;
  const detector = await getModel(chosen.card.detect.model);
  return { ...chosen, card: { ...chosen.card, nms_options: detector.card?.nms_options } };
}

function stepModel(by) {
  const names = [...document.querySelectorAll("#models input")].map(({ value }) => value);
  if (names.length) choose(names[(names.indexOf(model) + by + names.length) % names.length]);
}

function server(words, style) {
  write($("server").lastElementChild, words);
  $("server").className = `server ${style}`;
}

// Images

/** Add the samples that are new: those of the chosen model first, as its card has them, then those of most models. */
async function addSamples() {
  const own = details?.card?.golden?.map(({ sha256 }) => sha256) ?? [];
  const merit = ({ sha256, models }) => (own.includes(sha256) ? 1000 - own.indexOf(sha256) : models.length);
  const fresh = (await withKey(getSamples)).filter(({ sha256 }) => !samples.has(sha256));
  fresh.sort((a, b) => merit(b) - merit(a)).forEach(({ sha256 }) => samples.add(sha256));
  const images = await Promise.all(fresh.map((sample) => fetchSample(sample).catch(() => null)));
  strip.add(images.filter(Boolean), { show: strip.chosen === null && !camera.on, front: false });
}

async function show(image) {
  camera.stop();
  answer = null;
  asker.cancel(); // the answer under way is to another image
  title(image);
  complain("");
  $("empty").hidden = Boolean(image);
  const bitmap = image && (await image.bitmap());
  if (strip.chosen !== image) return;
  stage.show(bitmap);
  render();
  await ask();
}

function title(image, size) {
  $("name").replaceChildren(image?.name ?? "", size ? el("span", {}, `${size.width} × ${size.height}`) : "");
}

async function toggleCamera() {
  if (camera.on) {
    camera.stop();
    return;
  }
  try {
    await camera.start(async (image) => {
      strip.swap(image);
      $("empty").hidden = true;
      await ask();
      if (!$("error").hidden) await new Promise((done) => setTimeout(done, 1000));
    });
  } catch (error) {
    complain(error.message);
  }
}

// Asking

/** What would be asked now; null where nothing can be. */
function question() {
  const image = strip.chosen;
  if (!image || !details?.card) return null;
  const { name, task } = details.card;
  const url =
    task === "pipeline"
      ? address(`v1/pipelines/${name}`, options.query())
      : address(`v1/${options.task}`, { model: name, ...options.query() });
  return { url, image, type: typeOf(image.blob), locked: Boolean(key.get()) };
}

/** Ask, and show the answer together with its image. */
async function ask() {
  const asked = question();
  const obstacle = asked && whyNot(details);
  if (!asked || obstacle) {
    asker.cancel();
    if (obstacle) complain(obstacle);
    return;
  }
  try {
    const found = await withKey(() => asker.ask(asked.url, asked.image, details.card.keypoints?.skeleton));
    if (!found) return;
    if (stage.bitmap !== found.bitmap) stage.show(found.bitmap);
    answer = found;
    complain("");
    title(asked.image, answer.result.image);
    render();
    if (!camera.on) say(inWords(answer.result, visible()));
  } catch (problem) {
    answer = null;
    complain(problem.message);
    render();
  }
}

// Showing

/** Indices of the predictions that pass the score slider: it acts at once, the server's own answer follows. */
function visible() {
  const predictions = answer?.result.predictions ?? [];
  const least = options.get("score_threshold") ?? 0;
  return [...predictions.keys()].filter((index) => (predictions[index].score ?? 1) >= least);
}

function render() {
  const shown = visible();
  stage.opacity = options.get("opacity") ?? stage.opacity;
  stage.answered(answer, shown);
  const words = answer ? inWords(answer.result, shown) : "";
  $("canvas").setAttribute("aria-label", strip.chosen ? `${strip.chosen.name}. ${words}` : "No image yet");
  $("count").textContent = answer ? shown.length : "";
  $("total").textContent = answer ? `${milliseconds(answer.stages.total ?? 0)} ms` : "";
  showTiming($("timing"), answer);
  showPredictions($("predictions"), answer, shown, (index) => stage.point(index));
  code.show(question(), answer?.result);
}

function complain(message) {
  write($("error"), message);
  $("error").hidden = !message;
}

function hide() {
  stage.hidden = !stage.hidden;
  $("hide").setAttribute("aria-pressed", String(stage.hidden));
  stage.redraw();
}

const save = () => stage.save(`${strip.chosen?.name.replace(/\.\w+$/, "")}.${model}.png`);

// Wiring

const openTab = tabs(document.querySelector("header .tabs"), (name) => {
  for (const page of ["try", "live", "tensors"]) $(`page-${page}`).hidden = page !== name;
  if (name !== "try" || model) history.replaceState(null, "", `#${name === "try" ? model : name}`);
  if (name === "tensors") tensors.start();
  if (name === "live") live.start();
  else live.stop();
});
takeFiles((images) => {
  openTab("try");
  strip.add(images);
}, complain);
$("hide").addEventListener("click", hide);
$("save").addEventListener("click", save);
$("camera").addEventListener("click", toggleCamera);
$("camera").hidden = !hasCamera();
$("forget").addEventListener("click", () => {
  key.forget();
  location.reload();
});
shortcuts([
  ["o", "open images", () => $("file").click()],
  ["ArrowLeft", "the image before", () => strip.step(-1)],
  ["ArrowRight", "the next image", () => strip.step(1)],
  ["x", "take the image off the list", () => strip.remove(strip.chosen)],
  ["j", "the next model", () => stepModel(1)],
  ["k", "the model before", () => stepModel(-1)],
  ["h", "the image alone, and back", hide],
  ["s", "save the image as drawn", save],
  ["y", "copy the request", () => code.copy()],
  ...(hasCamera() ? [["c", "camera on and off", toggleCamera]] : []),
  ["t", "try", () => openTab("try")],
  ["l", "live", () => openTab("live")],
]);

if (["#live", "#tensors"].includes(location.hash)) openTab(location.hash.slice(1));
refreshModels();
