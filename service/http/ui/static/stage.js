// The stage: the canvas with the image, as large as there is room for, and what is pointed at on it.

import { draw, fit, hit } from "./draw.js";

export class Stage {
  bitmap = null; // of the image; null where there is none, or where the browser cannot show it
  size = null; // of what is drawn: the bitmap's, or what the answer says of an image that cannot be shown
  answer = null;
  visible = []; // indices of the predictions to draw
  opacity = 0.5;
  hidden = false; // the image alone
  #highlight = -1;

  /** @param pointed called with the index of the prediction under the pointer, -1 for none */
  constructor(canvas, pointed) {
    this.canvas = canvas;
    this.pointed = pointed;
    canvas.addEventListener("pointermove", ({ offsetX, offsetY }) => {
      if (!this.answer) return;
      const share = (offset, length) => Math.min(Math.max(offset / length, 0), 0.9999);
      const { clientWidth, clientHeight } = canvas;
      this.point(hit(this.answer, this.visible, share(offsetX, clientWidth), share(offsetY, clientHeight)));
    });
    canvas.addEventListener("pointerleave", () => this.point(-1));
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
  }

  /** Show an image, and nothing over it yet. */
  show(bitmap) {
    this.bitmap = bitmap;
    this.size = bitmap && { width: bitmap.width, height: bitmap.height };
    this.answer = null;
    this.resize();
  }

  /** Draw an answer over the image; null takes the last one away. */
  answered(answer, visible) {
    this.answer = answer;
    this.visible = visible;
    if (this.#highlight >= 0 && !visible.includes(this.#highlight)) this.point(-1);
    if (!this.bitmap && answer) {
      this.size = answer.result.image;
      this.resize();
    } else this.redraw();
  }

  /** Take the room that there is, in pixels of the screen. */
  resize() {
    this.canvas.hidden = !this.size;
    const frame = this.canvas.parentElement;
    if (!this.size || !frame.clientWidth) return;
    const style = getComputedStyle(frame);
    const { width, height } = fit(this.size.width, this.size.height, {
      width: frame.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight),
      height: frame.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom),
    });
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * devicePixelRatio);
    this.canvas.height = Math.round(height * devicePixelRatio);
    this.redraw();
  }

  redraw() {
    if (this.size) draw(this.canvas, { ...this, highlight: this.#highlight });
  }

  /** Make one prediction stand out. */
  point(index) {
    if (index === this.#highlight) return;
    this.#highlight = index;
    this.pointed(index);
    this.redraw();
  }

  /** Download what is seen, as a PNG. */
  save(name) {
    if (!this.size) return;
    this.canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = name;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }
}
