// The pictures at hand: samples, opened, dropped and pasted ones, camera frames; and the strip that shows them.

import { address, request } from "./api.js";
import { el } from "./dom.js";

const LONGEST = 2048; // pixels of the copy that is drawn; what is sent is the file as it is

export class Picture {
  #bitmap;

  frame = false; // of the camera

  /** @param sample its path on the server, where it is one of the server's own */
  constructor(name, blob, sample = "") {
    this.name = name;
    this.blob = blob;
    this.sample = sample;
    this.url = blob ? URL.createObjectURL(blob) : "";
  }

  /** The picture to draw: upright, not larger than needed; null where this browser cannot show it. */
  bitmap() {
    this.#bitmap ??= createImageBitmap(this.blob).then(shrink, () => null);
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
  return new Picture(sample.name, blob, sample.path);
}

export class Strip {
  pictures = [];
  chosen = null;

  /** @param choose called with the picture to show, or null once the last one is gone */
  constructor(element, choose) {
    this.element = element;
    this.choose = choose;
  }

  /** Add pictures in front, newest first of all, and show the first of them. */
  add(pictures, { show = true, front = true } = {}) {
    if (front) this.pictures.unshift(...pictures);
    else this.pictures.push(...pictures);
    if (show && pictures.length) this.select(pictures[0]);
    else this.#render();
  }

  /** Put the camera's next frame in the place of the one before it. The last one stays, once the camera is off. */
  swap(picture) {
    const before = this.chosen?.frame ? this.pictures.indexOf(this.chosen) : -1;
    picture.frame = true;
    if (before >= 0) this.pictures.splice(before, 1, picture)[0].free();
    else this.pictures.unshift(picture);
    this.chosen = picture;
    this.#render();
  }

  remove(picture) {
    const at = this.pictures.indexOf(picture);
    if (at < 0) return;
    this.pictures.splice(at, 1);
    picture.free();
    if (this.chosen === picture) this.select(this.pictures[Math.min(at, this.pictures.length - 1)] ?? null);
    else this.#render();
  }

  step(by) {
    const count = this.pictures.length;
    if (count) this.select(this.pictures[(this.pictures.indexOf(this.chosen) + by + count) % count]);
  }

  select(picture) {
    this.chosen = picture;
    this.#render();
    this.choose(picture);
  }

  #render() {
    const focused = this.element.contains(document.activeElement);
    this.element.replaceChildren(...this.pictures.map((picture) => this.#thumbnail(picture)));
    const current = this.element.querySelector('[aria-current="true"]');
    if (focused) current?.focus({ preventScroll: true });
    current?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #thumbnail(picture) {
    const image = el("img", { src: picture.url, alt: "", draggable: false, loading: "lazy" });
    image.addEventListener("error", () => image.replaceWith(el("span", { className: "unshown" }, picture.name)));
    const button = el(
      "button",
      {
        className: "thumbnail",
        title: picture.name,
        "aria-label": picture.name,
        "aria-current": String(picture === this.chosen),
      },
      image,
    );
    button.addEventListener("click", () => this.select(picture));
    return button;
  }
}
