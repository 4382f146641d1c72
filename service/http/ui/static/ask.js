// Asking: one question at a time. A newer one cancels the one under way, and late answers are dropped.

import { predict } from "./api.js";
import { prepare } from "./draw.js";

export class Asker {
  #abort = null;

  /** @param busy called with true when a question goes out, and with false when the last one is settled */
  constructor(busy) {
    this.busy = busy;
  }

  /** The answer ready to draw, and the image's bitmap; null where a newer question took over. Throws a `Problem`. */
  async ask(url, image, skeleton) {
    this.cancel();
    const abort = (this.#abort = new AbortController());
    this.busy(true);
    try {
      const [answer, bitmap] = await Promise.all([predict(url, image.blob, abort.signal), image.bitmap()]);
      answer.bitmap = bitmap;
      answer.layers = await prepare(answer.result, skeleton);
      return this.#abort === abort ? answer : null;
    } catch (error) {
      if (this.#abort !== abort || error.name === "AbortError") return null;
      throw error;
    } finally {
      if (this.#abort === abort) {
        this.#abort = null;
        this.busy(false);
      }
    }
  }

  cancel() {
    this.#abort?.abort();
    this.#abort = null;
    this.busy(false);
  }
}
