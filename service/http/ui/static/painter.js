// An image to a model without a task: the image that it answers with beside it, or its numbers.

import { getSamples, infer, paint } from "./api.js";
import { el } from "./dom.js";
import { fetchSample } from "./images.js";

/** Let an element show another file; the one before it is let go. */
function put(img, blob) {
  URL.revokeObjectURL(img.src);
  img.src = URL.createObjectURL(blob);
  return img;
}

export class Painter {
  #latest = null; // the image that was chosen last: answers to others are dropped

  static fits = ({ recipe, inputs }) => Boolean(recipe) && inputs !== undefined;

  constructor(card, panel, ask) {
    this.card = card;
    this.ask = ask;
    const file = el("input", { type: "file", accept: "image/*", "aria-label": "An image" });
    file.addEventListener("change", () => file.files[0] && this.#show(file.files[0]));
    this.samples = el("div", { className: "strip", role: "group", "aria-label": "Samples" });
    this.before = el("img", { alt: "before" });
    this.painted = el("img", { alt: "after" });
    this.after = el("div", { role: "status" });
    panel.append(file, this.samples, el("div", { className: "painted" }, el("figure", {}, this.before), this.after));
    this.#offer();
  }

  async #offer() {
    const samples = (await this.ask(getSamples)) ?? [];
    for (const sample of samples) {
      const image = await fetchSample(sample).catch(() => null);
      if (!image) continue;
      if (!this.samples.isConnected) return image.free(); // another model was chosen meanwhile
      const img = el("img", { src: image.url, alt: "" });
      const button = el("button", { className: "thumbnail", title: image.name, "aria-label": image.name }, img);
      button.addEventListener("click", () => this.#show(image.blob));
      this.samples.append(button);
    }
  }

  async #show(blob) {
    this.#latest = blob;
    put(this.before, blob);
    this.after.replaceChildren();
    const { name, outputs } = this.card;
    if (outputs.some((output) => output.name === "image")) {
      const painted = await this.ask(() => paint(name, blob));
      if (painted && this.#latest === blob) this.after.replaceChildren(put(this.painted, painted));
      return;
    }
    const answer = await this.ask(() => infer(name, blob));
    if (answer && this.#latest === blob) this.after.replaceChildren(...Object.values(answer).map(words));
  }
}

const words = ({ name, data }) => el("p", {}, `${name}: ${data.slice(0, 8).map((value) => value.toPrecision(4)).join(", ")}`);
