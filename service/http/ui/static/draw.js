// An answer drawn over its image. The canvas has the image's proportions, so one factor takes boxes to it.

import { percent } from "./dom.js";
import { contains, drawPose, drawRotated } from "./figures.js";
import { decodeMask, maskOf, paintHeat, paintMasks } from "./masks.js";
import { cut, nameOf, shareOf } from "./names.js";
import { channels, colourOf } from "./palette.js";

const FINEST = 768; // longest side of masks, in pixels

/** What takes time to prepare, done once for an answer: its masks, and its heat map. The skeleton is the model's. */
export async function prepare(result, skeleton = []) {
  const scale = Math.min(1, FINEST / Math.max(result.image.width, result.image.height));
  const width = Math.max(1, Math.round(result.image.width * scale));
  const height = Math.max(1, Math.round(result.image.height * scale));
  const masks = await Promise.all(result.predictions.map((each) => maskOf(each, result.image, width, height)));
  const heat = result.predictions[0]?.heatmap;
  const anchors = masks.map((mask) => mask && anchor(mask, width));
  const warm = heat ? paintHeat(await decodeMask(heat, result.image, width, height), width, height) : null;
  return { width, height, masks, anchors, warm, skeleton, painted: null, shown: "" };
}

/** Where a mask is named: [x, y] in its pixels, at its centre of mass or the nearest pixel of it in that row. */
function anchor(mask, width) {
  let [count, across, down] = [0, 0, 0];
  mask.forEach((value, i) => {
    if (value < 128) return;
    count++;
    across += i % width;
    down += Math.floor(i / width);
  });
  if (!count) return null;
  const [x, y] = [Math.round(across / count), Math.round(down / count)];
  const inside = (at) => at >= 0 && at < width && mask[y * width + at] > 127;
  for (let step = 0; step < width; step++) {
    if (inside(x - step)) return [x - step, y];
    if (inside(x + step)) return [x + step, y];
  }
  return [x, y];
}

/** Fit an image of width x height into a box, at a whole factor where it is tiny; in CSS pixels. */
export function fit(width, height, room) {
  const scale = Math.min(room.width / width, room.height / height);
  const most = Math.max(width, height) < 128 ? Math.floor(scale) || scale : Math.min(scale, 4);
  return { width: Math.max(1, Math.round(width * most)), height: Math.max(1, Math.round(height * most)) };
}

/**
 * Draw everything.
 * @param view {bitmap, answer, visible (indices of predictions), opacity, highlight (index or -1), hidden}
 */
export function draw(canvas, { bitmap, answer, visible, opacity, highlight, hidden }) {
  const context = canvas.getContext("2d");
  const ratio = canvas.width / (canvas.clientWidth || canvas.width);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = !bitmap || canvas.width < 4 * bitmap.width;
  context.imageSmoothingQuality = "high";
  if (bitmap) context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  if (!answer || hidden) return;
  context.imageSmoothingEnabled = true;
  const { result, layers } = answer;
  const { predictions } = result;
  const scale = canvas.width / result.image.width;
  if (layers.warm) paint(context, layers.warm, opacity);
  drawMasks(context, layers, predictions, visible, opacity);
  for (const index of [...visible].reverse()) {
    const dim = highlight >= 0 && highlight !== index;
    const { box, keypoints, corners } = predictions[index];
    const colour = colourOf(predictions[index], index);
    for (const [rank, part] of partsOf(predictions[index]).entries()) {
      const its = colourOf(part, rank);
      if (part.keypoints) drawPose(context, part.keypoints, layers.skeleton, its, { scale, ratio, dim });
      if (part.box) drawBox(context, part.box, its, { scale, ratio, dim });
    }
    if (keypoints) drawPose(context, keypoints, layers.skeleton, colour, { scale, ratio, dim });
    if (box) drawBox(context, box, colour, { scale, ratio, dim });
    if (corners) drawRotated(context, corners, colour, { scale, ratio, dim });
  }
  const taken = []; // by labels; the best prediction's comes first, later ones give way
  for (const index of visible) {
    if (highlight >= 0 && highlight !== index) continue;
    const { box, corners } = predictions[index];
    const corner = corners?.[0] ?? box;
    const point = corner
      ? [corner[0] * scale, corner[1] * scale]
      : layers.anchors[index]?.map((value) => (value * canvas.width) / layers.width);
    if (point)
      drawLabel(context, predictions[index], colourOf(predictions[index], index), {
        point,
        ratio,
        taken,
        centred: !corner,
      });
  }
  if (result.task === "classify") drawBars(context, predictions, ratio);
}

/** What a second model found in an object's crop, in pixels of the image. A class needs no drawing: it names the box. */
function partsOf({ crop, second }) {
  if (!second || second.task === "classify") return [];
  const [left, top] = crop;
  return second.predictions.map(({ box, keypoints, ...rest }) => ({
    ...rest,
    box: box && [box[0] + left, box[1] + top, box[2] + left, box[3] + top],
    keypoints:
      keypoints && Object.fromEntries(Object.entries(keypoints).map(([name, [x, y, s]]) => [name, [x + left, y + top, s]])),
  }));
}

function paint(context, layer, opacity) {
  context.globalAlpha = opacity;
  context.drawImage(layer, 0, 0, context.canvas.width, context.canvas.height);
  context.globalAlpha = 1;
}

function drawMasks(context, layers, predictions, visible, opacity) {
  const masked = visible.filter((index) => layers.masks[index]);
  if (!masked.length) return;
  if (layers.shown !== masked.join()) {
    const coloured = [...masked]
      .reverse()
      .map((index) => ({ mask: layers.masks[index], colour: colourOf(predictions[index], index) }));
    layers.painted = paintMasks(coloured, layers.width, layers.height);
    layers.shown = masked.join();
  }
  paint(context, layers.painted.fill, opacity);
  paint(context, layers.painted.edge, 1);
}

function drawBox(context, box, colour, { scale, ratio, dim }) {
  const [x0, y0, x1, y1] = box.map((value) => value * scale);
  const line = 2.5 * ratio;
  context.globalAlpha = dim ? 0.25 : 1;
  context.strokeStyle = colour;
  context.lineWidth = line;
  context.lineJoin = "round";
  // Inside the box, so that one at the image's border is seen whole.
  context.strokeRect(x0 + line / 2, y0 + line / 2, Math.max(1, x1 - x0 - line), Math.max(1, y1 - y0 - line));
  context.globalAlpha = 1;
}

function drawLabel(context, prediction, colour, { point, ratio, taken, centred }) {
  const size = 12 * ratio;
  const pad = 5 * ratio;
  context.font = `600 ${size}px ${getComputedStyle(context.canvas).fontFamily}`;
  context.textBaseline = "middle";
  const share = ` ${percent(shareOf(prediction))}`;
  const most = Math.max(context.canvas.width / 2, 160 * ratio) - context.measureText(share).width;
  const text = `\u2068${cut(context, nameOf(prediction), most)}\u2069${share}`;
  const width = Math.min(context.measureText(text).width + 2 * pad, context.canvas.width);
  const height = size + 1.4 * pad;
  const left = Math.max(0, Math.min(point[0] - (centred ? width / 2 : 0), context.canvas.width - width));
  let top = Math.max(0, point[1] - (centred ? height / 2 : height)); // within the box where there is no room above it
  const clashes = (y) => taken.some(([x0, y0, x1, y1]) => left < x1 && left + width > x0 && y < y1 && y + height > y0);
  for (let tries = 0; tries < 8 && clashes(top) && top + 2 * height < context.canvas.height; tries++)
    top += height + ratio;
  taken.push([left, top, left + width, top + height]);
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(left, top, width, height, 3 * ratio);
  context.fill();
  context.fillStyle = inkOn(colour);
  context.fillText(text, left + pad, top + height / 2, width - 2 * pad);
}

const inkOn = (colour) => {
  const [red, green, blue] = channels(colour);
  return 0.299 * red + 0.587 * green + 0.114 * blue > 120 ? "#111114" : "#ffffff";
};

function drawBars(context, predictions, ratio) {
  const { width, height } = context.canvas;
  const pad = 12 * ratio;
  const row = 24 * ratio;
  const count = Math.min(predictions.length, 5, Math.floor((height - 2 * pad) / row));
  if (count < 1 || width < 140 * ratio) return;
  const across = Math.min(width - 2 * pad, 280 * ratio);
  const top = height - pad - count * row - pad;
  context.fillStyle = "rgb(10 10 14 / 78%)";
  context.beginPath();
  context.roundRect(pad, top, across, count * row + pad, 8 * ratio);
  context.fill();
  context.font = `600 ${12 * ratio}px ${getComputedStyle(context.canvas).fontFamily}`;
  context.textBaseline = "middle";
  predictions.slice(0, count).forEach((prediction, index) => {
    const y = top + pad / 2 + index * row;
    const room = across - 2 * pad;
    context.fillStyle = "rgb(255 255 255 / 14%)";
    context.beginPath();
    context.roundRect(2 * pad, y + row - 5 * ratio, room, 3 * ratio, 2 * ratio);
    context.fill();
    context.fillStyle = colourOf(prediction, index);
    context.beginPath();
    context.roundRect(2 * pad, y + row - 5 * ratio, Math.max(2 * ratio, room * prediction.score), 3 * ratio, 2 * ratio);
    context.fill();
    context.fillStyle = "#ffffff";
    const share = percent(prediction.score);
    const side = context.measureText(share).width;
    const name = cut(context, nameOf(prediction), room - side - pad);
    context.fillText(`\u2068${name}\u2069`, 2 * pad, y + row / 2 - 2 * ratio, room - side - pad);
    context.fillText(share, 2 * pad + room - side, y + row / 2 - 2 * ratio);
  });
}

/** The index of the smallest thing at a point of the image (x and y from 0 to 1), or -1. */
export function hit({ result, layers }, visible, x, y) {
  let found = -1;
  let smallest = Infinity;
  const at = Math.floor(y * layers.height) * layers.width + Math.floor(x * layers.width);
  for (const index of visible) {
    const { box, area, corners, size: sides } = result.predictions[index];
    const mask = layers.masks[index];
    const [x0, y0, x1, y1] = box ?? [0, 0, result.image.width, result.image.height];
    const inside = mask
      ? mask[at] > 127
      : corners
        ? contains(corners, x * result.image.width, y * result.image.height)
        : box &&
        x * result.image.width >= x0 &&
        x * result.image.width <= x1 &&
        y * result.image.height >= y0 &&
        y * result.image.height <= y1;
    const covered = sides ? sides[0] * sides[1] : (x1 - x0) * (y1 - y0);
    const size = area ?? covered / (result.image.width * result.image.height);
    if (inside && size < smallest) [found, smallest] = [index, size];
  }
  return found;
}
