// Poses and rotated boxes, drawn over their image. Both are in its pixels; `scale` takes them to the canvas.

const CLEAR = 0.5; // the score from which on a keypoint is drawn, as in drawings that the server makes

/** Draw the keypoints of a pose that are clear, and the lines of the skeleton between them. */
export function drawPose(context, keypoints, skeleton, colour, { scale, ratio, dim }) {
  const points = Object.values(keypoints).map(([x, y, score]) => (score >= CLEAR ? [x * scale, y * scale] : null));
  context.globalAlpha = dim ? 0.25 : 1;
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = 2.5 * ratio;
  for (const [from, to] of skeleton) {
    if (!points[from] || !points[to]) continue;
    context.beginPath();
    context.moveTo(...points[from]);
    context.lineTo(...points[to]);
    context.stroke();
  }
  for (const point of points) {
    if (!point) continue;
    context.beginPath();
    context.arc(...point, 3.5 * ratio, 0, 2 * Math.PI);
    context.fill();
  }
  context.globalAlpha = 1;
}

/** Draw a rotated box; its upper side, from the first corner to the second, is twice as strong. */
export function drawRotated(context, corners, colour, { scale, ratio, dim }) {
  const points = corners.map(([x, y]) => [x * scale, y * scale]);
  const trace = (places) => {
    context.beginPath();
    places.forEach((point, index) => (index ? context.lineTo(...point) : context.moveTo(...point)));
  };
  context.globalAlpha = dim ? 0.25 : 1;
  context.strokeStyle = colour;
  context.lineWidth = 2.5 * ratio;
  context.lineJoin = "round";
  trace(points);
  context.closePath();
  context.stroke();
  context.lineWidth *= 2;
  trace(points.slice(0, 2));
  context.stroke();
  context.globalAlpha = 1;
}

/** Whether a point of the image is in a rotated box: on the same side of all its sides. */
export function contains(corners, x, y) {
  return corners.every(([x0, y0], index) => {
    const [x1, y1] = corners[(index + 1) % corners.length];
    return (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0;
  });
}
