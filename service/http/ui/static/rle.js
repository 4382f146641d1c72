// COCO's compressed run lengths, as `mask=rle` answers them: see maskApi.c of pycocotools.

/** Lengths of the runs of 0 and 1 in turn, down the columns, beginning with 0. */
export function runLengths(counts) {
  const runs = [];
  for (let at = 0; at < counts.length;) {
    let value = 0;
    let shift = 0;
    let more = true;
    while (more) {
      const code = counts.charCodeAt(at++) - 48;
      value |= (code & 0x1f) << shift;
      shift += 5;
      more = (code & 0x20) !== 0;
      if (!more && code & 0x10) value |= -1 << shift;
    }
    if (runs.length > 2) value += runs[runs.length - 2]; // from the fourth on, the difference to the one before last
    runs.push(value);
  }
  return runs;
}

/**
 * Decode a mask straight to the size at which it is drawn, by nearest neighbour.
 * Returns width * height bytes, row by row: 255 inside, 0 outside.
 */
export function decodeRle({ size: [rows, columns], counts }, width, height) {
  const runs = runLengths(counts);
  const mask = new Uint8Array(width * height);
  let run = 0;
  let end = runs[0] ?? 0; // where the current run ends
  for (let x = 0; x < width; x++) {
    const column = Math.floor(((x + 0.5) * columns) / width) * rows;
    // A column that is drawn twice is read twice: go back to its first run.
    while (run > 0 && end - runs[run] > column) end -= runs[run--];
    for (let y = 0; y < height; y++) {
      const position = column + Math.floor(((y + 0.5) * rows) / height);
      while (position >= end && run < runs.length - 1) end += runs[++run];
      if (run & 1 && position < end) mask[y * width + x] = 255;
    }
  }
  return mask;
}
