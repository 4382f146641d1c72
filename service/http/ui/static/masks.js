// Masks of every form, brought to the size at which they are drawn, coloured, and with an outline.

import { channels, fire } from "./palette.js";
import { decodeRle } from "./rle.js";

/** A mask of any form -> width * height bytes, 0 outside to 255 inside. `image` is the image's size. */
export async function decodeMask(mask, image, width, height) {
  if (mask.counts !== undefined) return decodeRle(mask, width, height);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (mask.png !== undefined) {
    const bytes = Uint8Array.from(atob(mask.png), (letter) => letter.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    return channel(context, 0);
  }
  context.scale(width / image.width, height / image.height);
  const path = new Path2D();
  for (const polygon of mask.polygons) {
    for (let i = 0; i < polygon.length; i += 2) path[i ? "lineTo" : "moveTo"](polygon[i], polygon[i + 1]);
    path.closePath();
  }
  context.fill(path, "evenodd");
  return channel(context, 3);
}

/** The mask of a prediction, or those of its crop united, as width * height bytes; null where there is none. */
export async function maskOf({ mask, crop, second }, image, width, height) {
  if (mask) return decodeMask(mask, image, width, height);
  const parts = (second?.predictions ?? []).filter((part) => part.mask);
  if (!parts.length) return null;
  const place = (value, side, most) => Math.min(Math.round((value * side) / most), side - 1);
  const [left, top] = [place(crop[0], width, image.width), place(crop[1], height, image.height)];
  const across = Math.min(width - left, Math.max(1, Math.round(((crop[2] - crop[0]) * width) / image.width)));
  const down = Math.min(height - top, Math.max(1, Math.round(((crop[3] - crop[1]) * height) / image.height)));
  const whole = new Uint8Array(width * height);
  for (const part of parts) {
    const own = await decodeMask(part.mask, second.image, across, down);
    own.forEach((value, i) => {
      const at = (top + Math.floor(i / across)) * width + left + (i % across);
      whole[at] = Math.max(whole[at], value);
    });
  }
  return whole;
}

function channel(context, index) {
  const { width, height } = context.canvas;
  const { data } = context.getImageData(0, 0, width, height);
  const values = new Uint8Array(width * height);
  for (let i = 0; i < values.length; i++) values[i] = data[4 * i + index];
  return values;
}

/** Masks in their colours: a canvas of what they cover and one of their outlines. `layers` are {mask, colour}. */
export function paintMasks(layers, width, height) {
  const fill = new Uint32Array(width * height);
  const edge = new Uint32Array(width * height);
  for (const { mask, colour } of layers) {
    const rgb = packed(...channels(colour));
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        if (!mask[i]) continue;
        fill[i] = (mask[i] << 24) | rgb;
        if (mask[i] < 128) continue;
        const border = x === 0 || y === 0 || x === width - 1 || y === height - 1;
        if (border || mask[i - 1] < 128 || mask[i + 1] < 128 || mask[i - width] < 128 || mask[i + width] < 128)
          edge[i] = (255 << 24) | rgb;
      }
    }
  }
  return { fill: canvasOf(fill, width, height), edge: canvasOf(edge, width, height) };
}

/** Heat as a canvas: fire where it is hot, nothing where it is cold. */
export function paintHeat(heat, width, height) {
  const colours = Uint32Array.from(
    { length: 256 },
    (_, i) => (Math.min(255, 1.5 * i) << 24) | packed(...fire(i / 255)),
  );
  return canvasOf(
    Uint32Array.from(heat, (value) => colours[value]),
    width,
    height,
  );
}

const packed = (red, green, blue) => (blue << 16) | (green << 8) | red; // RGBA in memory, on little-endian machines

function canvasOf(pixels, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
  return canvas;
}
