// Class names as they can be shown: in one line, and never empty.

/** The best class of an object's crop, where a pipeline asked a second model for it. */
export const secondOf = ({ second }) => (second?.task === "classify" ? second.predictions[0] : undefined);

/** The share that a prediction is about: its probability, or how much of the image it covers. */
export const shareOf = (prediction) => secondOf(prediction)?.score ?? prediction.score ?? prediction.area;

/** A class name in one line; `class 7` where there is nothing of it to see. */
export function nameOf(prediction) {
  const own = ownName(prediction);
  const best = secondOf(prediction);
  return best ? `${own}: ${ownName(best)}` : own;
}

function ownName({ label, class_id }) {
  // Directional controls would turn what stands beside the name; the isolates keep a name from doing so.
  const line = label.replace(/[\s\p{Cc}\u202a-\u202e\u2066-\u2069]+/gu, " ").trim();
  return line.replace(/[\p{Cf}\p{M}]/gu, "") ? line : `class ${class_id}`;
}

/** As much of a text's beginning as has room on a canvas, with an ellipsis where it is cut. */
export function cut(context, text, room) {
  if (text.length < 400 && context.measureText(text).width <= room) return text;
  const letters = [...text.slice(0, 400)];
  let [fits, most] = [0, letters.length];
  while (fits < most) {
    const middle = Math.ceil((fits + most) / 2);
    if (context.measureText(`${letters.slice(0, middle).join("")}…`).width <= room) fits = middle;
    else most = middle - 1;
  }
  return fits ? `${letters.slice(0, fits).join("")}…` : "";
}
