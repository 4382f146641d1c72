// The page of models that take tensors, or answer images without a task: each kind that is known by its tensors' names.

import { getModel } from "./api.js";
import { el, write } from "./dom.js";
import { withKey } from "./keys.js";
import { Letters } from "./letters.js";
import { Painter } from "./painter.js";
import { Walk } from "./walk.js";

const KINDS = [Letters, Walk, Painter];

export class Tensors {
  #cards = new Map(); // by name and version: those that a kind fits
  #shown = null;

  /** @param parts elements: `model` (a select), `title`, `note`, `error` and `panel` */
  constructor(parts) {
    this.parts = parts;
    parts.model.addEventListener("change", () => this.start());
  }

  /** Offer those of the models that a kind fits. Returns whether there are any. */
  async offer(models) {
    const ready = models.filter(({ task, state }) => task === "tensors" && (state === "ready" || state === "on_demand"));
    for (const { name, version } of ready) {
      const id = `${name} ${version}`;
      try {
        if (!this.#cards.has(id)) this.#cards.set(id, (await withKey(() => getModel(name))).card);
      } catch {
        // it is left out until the next look
      }
    }
    const offered = ready
      .map(({ name, version }) => this.#cards.get(`${name} ${version}`))
      .filter((card) => card && kindOf(card));
    const names = offered.map(({ name }) => name);
    const { model } = this.parts;
    if (names.join() !== [...model.options].map(({ value }) => value).join()) {
      const chosen = model.value;
      model.replaceChildren(...names.map((name) => el("option", { value: name, selected: name === chosen }, name)));
    }
    this.offered = offered;
    return names.length > 0;
  }

  /** Show the chosen model. */
  start() {
    const card = this.offered?.find(({ name }) => name === this.parts.model.value);
    if (!card || card === this.#shown) return;
    this.#shown = card;
    const { title, note, panel } = this.parts;
    write(title, card.title);
    write(note, "");
    this.#complain("");
    for (const img of panel.querySelectorAll("img")) URL.revokeObjectURL(img.src);
    panel.replaceChildren();
    const ask = async (question) => {
      const start = performance.now();
      try {
        const answer = await withKey(question);
        if (this.#shown !== card) return null; // another was chosen meanwhile
        write(note, `answered in ${Math.round(performance.now() - start)} ms`);
        this.#complain("");
        return answer;
      } catch (problem) {
        if (this.#shown === card) this.#complain(problem.message);
        return null;
      }
    };
    new (kindOf(card))(card, panel, ask);
  }

  #complain(message) {
    write(this.parts.error, message);
    this.parts.error.hidden = !message;
  }
}

const kindOf = (card) => KINDS.find((kind) => kind.fits(card));
