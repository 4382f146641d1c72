// Colours by class, and by stage: the same class is the same colour in the image and in the list.

const CLASSES = [
  "#ff5d5d",
  "#38bdf8",
  "#4ade80",
  "#fbbf24",
  "#c084fc",
  "#fb7185",
  "#2dd4bf",
  "#f97316",
  "#818cf8",
  "#a3e635",
  "#e879f9",
  "#22d3ee",
];

export const STAGES = {
  read: "#94a3b8",
  decode: "#38bdf8",
  queue: "#fbbf24",
  infer: "#818cf8",
  postprocess: "#4ade80",
  encode: "#fb7185",
};

/** `#rrggbb` for a prediction: objects of one class that have masks or keypoints of their own differ. */
export function colourOf(prediction, index) {
  const apart = (prediction.mask || prediction.keypoints) && prediction.box;
  return CLASSES[(apart ? index : prediction.class_id * 5 + 1) % CLASSES.length];
}

export const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** Fire: dark purple to pale yellow, for `t` from 0 to 1. */
export function fire(t) {
  const stops = [
    [40, 11, 84],
    [137, 34, 106],
    [220, 75, 60],
    [249, 164, 34],
    [252, 255, 180],
  ];
  const at = Math.min(Math.max(t, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  return stops[low].map((from, i) => from + (stops[low + 1][i] - from) * (at - low));
}
