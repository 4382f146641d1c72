// The next letter, guessed as one types. The state of the text so far is kept here: only what is new is sent.

import { infer } from "./api.js";
import { el, percent } from "./dom.js";

const GUESSES = 8;
const UNKNOWN = 63; // a question mark, for what is beyond ASCII
const NAMES = { "\n": "new line", " ": "space" };

export class Letters {
  #seen = ""; // the text that `#state` is of
  #state = null;
  #asking = false;

  static fits({ inputs, outputs }) {
    const names = (tensors) => tensors.map(({ name }) => name).join();
    return names(inputs ?? []) === "characters,state" && names(outputs) === "probabilities,next_state";
  }

  /** @param ask runs a question, shows how long it took or what is wrong, and returns its answer or null */
  constructor(card, panel, ask) {
    this.card = card;
    this.ask = ask;
    this.text = el("textarea", { "aria-label": "Text", spellcheck: false, placeholder: "Type English text" });
    this.guesses = el("ol", { className: "guesses", "aria-label": "The next letter" });
    this.text.addEventListener("input", () => this.#read());
    panel.append(el("div", { className: "letters" }, this.text, this.guesses));
  }

  /** Read on until all that was typed is read; one request at a time. */
  async #read() {
    if (this.#asking) return;
    this.#asking = true;
    while (this.text.value !== this.#seen) {
      const text = this.text.value;
      const goesOn = this.#seen && text.startsWith(this.#seen);
      const answer = text && (await this.ask(() => this.#infer(text.slice(goesOn ? this.#seen.length : 0), goesOn)));
      if (answer === null) break; // what is wrong is shown; the next letter tries again
      this.#seen = text;
      this.#state = answer ? answer.next_state.data : null;
      this.#show(answer ? answer.probabilities.data : []);
    }
    this.#asking = false;
  }

  #infer(text, goesOn) {
    const codes = Array.from(text, (_, at) => text.charCodeAt(at)).map((code) => (code < 128 ? code : UNKNOWN));
    const shape = [1, ...this.card.inputs[1].shape.slice(1)];
    const state = goesOn ? this.#state : new Array(shape.reduce((a, b) => a * b)).fill(0);
    return infer(this.card.name, [
      { name: "characters", datatype: "UINT8", shape: [1, codes.length], data: codes },
      { name: "state", datatype: "FP32", shape, data: state },
    ]);
  }

  #show(probabilities) {
    const best = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, GUESSES);
    this.guesses.replaceChildren(...best.map((code) => this.#guess(String.fromCharCode(code), probabilities[code])));
  }

  #guess(letter, share) {
    const bar = el("i");
    bar.style.width = `${100 * share}%`;
    const button = el("button", {}, el("span", {}, NAMES[letter] ?? letter), el("span", {}, bar), percent(share));
    button.addEventListener("click", () => {
      this.text.value += letter;
      this.#read();
    });
    return el("li", {}, button);
  }
}
