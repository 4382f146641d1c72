// A walk between two latent vectors of a generator. All images on the way are one request.

import { infer } from "./api.js";
import { el } from "./dom.js";

const STEPS = 33;

/** A normally distributed number, by Box and Muller. */
const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

/** A vector between two, on the arc: those on the chord are shorter than any that the generator knows. */
export function between(one, other, share) {
  const dot = one.reduce((sum, value, at) => sum + value * other[at], 0);
  const angle = Math.acos(Math.min(1, Math.max(-1, dot / (Math.hypot(...one) * Math.hypot(...other)))));
  if (angle < 1e-6) return one;
  const [first, second] = [Math.sin((1 - share) * angle), Math.sin(share * angle)].map((part) => part / Math.sin(angle));
  return one.map((value, at) => first * value + second * other[at]);
}

export class Walk {
  #images = null; // {shape, data}

  static fits({ inputs, outputs }) {
    const image = outputs.find(({ name }) => name === "image");
    return inputs?.length === 1 && inputs[0].name === "latent" && inputs[0].shape[1] && image?.dtype === "uint8";
  }

  constructor(card, panel, ask) {
    this.card = card;
    this.ask = ask;
    this.ends = [this.#draw(), this.#draw()];
    this.canvas = el("canvas", { role: "img", "aria-label": "No image yet", width: 1, height: 1 });
    this.slider = el("input", { type: "range", min: 0, max: STEPS - 1, step: 1, "aria-label": "Where on the walk" });
    this.slider.value = 0;
    this.slider.addEventListener("input", () => this.#show());
    const another = (end, words) => {
      const button = el("button", {}, words);
      button.addEventListener("click", () => {
        this.ends[end] = this.#draw();
        this.#walk();
      });
      return button;
    };
    const buttons = el("div", { className: "bar" }, another(0, "Another start"), another(1, "Another end"));
    panel.append(el("div", { className: "walk" }, this.canvas, this.slider, buttons));
    this.#walk();
  }

  #draw() {
    return Array.from({ length: this.card.inputs[0].shape[1] }, normal);
  }

  async #walk() {
    const [one, other] = this.ends;
    const rows = Array.from({ length: STEPS }, (_, step) => between(one, other, step / (STEPS - 1)));
    const latent = { name: "latent", datatype: "FP32", shape: [STEPS, one.length], data: rows.flat() };
    const answer = await this.ask(() => infer(this.card.name, [latent]));
    if (!answer || this.ends[0] !== one || this.ends[1] !== other) return; // other ends were drawn meanwhile
    this.#images = answer.image;
    this.#show();
  }

  #show() {
    if (!this.#images) return;
    const [, height, width, channels] = this.#images.shape;
    const step = Number(this.slider.value);
    const from = step * height * width * channels;
    const pixels = new Uint8ClampedArray(4 * height * width).fill(255);
    for (let pixel = 0; pixel < height * width; pixel++)
      for (let channel = 0; channel < Math.max(3, channels); channel++)
        pixels[4 * pixel + channel] = this.#images.data[from + pixel * channels + (channels === 1 ? 0 : channel)];
    Object.assign(this.canvas, { width, height });
    this.canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
    this.canvas.setAttribute("aria-label", `Image ${step + 1} of ${STEPS}`);
  }
}
