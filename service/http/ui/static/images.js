// The images at hand: samples, opened, dropped and pasted ones, camera frames; and the strip that shows them.

import { address, request } from "./api.js";
import { el } from "./dom.js";

const LONGEST = 2048; // pixels of the copy that is drawn; what is sent is the file as it is

export class ImageFile {
  #bitmap;

  frame = false; // of the camera

  /** @param sample its path on the server, where it is one of the server's own */
  constructor(name, blob, sample = "") {
    this.name = name;
    this.blob = blob;
    this.sample = sample;
    this.url = blob ? URL.createObjectURL(blob) : "";
  }

  /** The image to draw: upright, not larger than needed; null where this browser cannot show it. */
  bitmap() {
    this.#bitmap ??= createImageBitmap(this.blob)
      .then(shrink)
      .catch(() => null);
    return this.#bitmap;
  }

  /** Let the file go. Its bitmap stays until nothing draws it any more. */
  free() {
    URL.revokeObjectURL(this.url);
  }
}

async function shrink(bitmap) {
  const scale = LONGEST / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return bitmap;
  const smaller = await createImageBitmap(bitmap, {
    resizeWidth: Math.max(1, Math.round(bitmap.width * scale)),
    resizeHeight: Math.max(1, Math.round(bitmap.height * scale)),
    resizeQuality: "high",
  });
  bitmap.close();
  return smaller;
}

/** Fetch a sample's bytes; through `request`, since they may need a key. */
export async function fetchSample(sample) {
  const blob = await (await request(address(`ui/${sample.path}`))).blob();
  return new ImageFile(sample.name, blob, sample.path);
}

export class Strip {
  images = [];
  chosen = null;

  /** @param choose called with the image to show, or null once the last one is gone */
  constructor(element, choose) {
    this.element = element;
    this.choose = choose;
  }

  /** Add images in front, newest first of all, and show the first of them. */
  add(images, { show = true, front = true } = {}) {
    if (front) this.images.unshift(...images);
    else this.images.push(...images);
    if (show && images.length) this.select(images[0]);
    else this.#render();
  }

  /** Put the camera's next frame in the place of the one before it. The last one stays, once the camera is off. */
  swap(image) {
    const before = this.chosen?.frame ? this.images.indexOf(this.chosen) : -1;
    image.frame = true;
    if (before >= 0) this.images.splice(before, 1, image)[0].free();
    else this.images.unshift(image);
    this.chosen = image;
    this.#render();
  }

  remove(image) {
    const at = this.images.indexOf(image);
    if (at < 0) return;
    this.images.splice(at, 1);
    image.free();
    if (this.chosen === image) this.select(this.images[Math.min(at, this.images.length - 1)] ?? null);
    else this.#render();
  }

  step(by) {
    const count = this.images.length;
    if (count) this.select(this.images[(this.images.indexOf(this.chosen) + by + count) % count]);
  }

  select(image) {
    this.chosen = image;
    this.#render();
    this.choose(image);
  }

  #render() {
    const focused = this.element.contains(document.activeElement);
    this.element.replaceChildren(...this.images.map((image) => this.#thumbnail(image)));
    const current = this.element.querySelector('[aria-current="true"]');
    if (focused) current?.focus({ preventScroll: true });
    current?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #thumbnail(image) {
    const img = el("img", { src: image.url, alt: "", draggable: false, loading: "lazy" });
    img.addEventListener("error", () => img.replaceWith(el("span", { className: "unshown" }, image.name)));
    const button = el(
      "button",
      {
        className: "thumbnail",
        title: image.name,
        "aria-label": image.name,
        "aria-current": String(image === this.chosen),
      },
      img,
    );
    button.addEventListener("click", () => this.select(image));
    return button;
  }
}
