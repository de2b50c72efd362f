// What a detector sees: the end of onnxcam/targets/detections.py. The model gives every row's box,
// class and confidence.

const THRESHOLD = 0.25;
const OVERLAP = 0.5;
const MOST = 300;

function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const shared = Math.max(0, width) * Math.max(0, height);
  const area = (box) => Math.max(0, box[2] - box[0]) * Math.max(0, box[3] - box[1]);
  const whole = area(a) + area(b) - shared;
  return whole > 0 ? shared / whole : 0;
}

/** Leave out boxes that overlap a surer one of their class; the surest comes first. */
function apart(found, reading) {
  const limit = reading.overlap ?? OVERLAP;
  const kept = [];
  for (const one of found.slice(0, 10 * MOST)) {
    const same = kept.filter((other) => other.class === one.class);
    const clear = same.every((other) => overlap(one.box, other.box) <= limit);
    if (!same.length || (same.length < (reading.most ?? MOST) && clear)) kept.push(one);
  }
  return kept;
}

/**
 * What a detector sees, the surest first.
 *
 * @param numbers of every row of its output: `boxes`, corners in pixels of the input, 0 where they
 *   are not known; the best of `classes`; how `sure`.
 * @param reading as surgeon/plan.py's DetectorFacts.
 * @param placed where the photograph lies in the input, as pixels.js' geometry() gives it.
 * @returns [{row, class, score, box: [left, top, right, bottom] of the photograph, or undefined}]
 */
export function detections({ boxes, classes, sure }, reading, placed) {
  const least = reading.threshold ?? THRESHOLD;
  let found = Array.from(sure, (score, row) => ({ row, class: classes[row], score }))
    .filter(({ score }) => score > least)
    .sort((a, b) => b.score - a.score);
  if (boxes?.some((v) => v !== 0)) {
    for (const one of found) one.box = Array.from(boxes.subarray(4 * one.row, 4 * one.row + 4));
    if (!reading.final) found = apart(found, reading);
    const inPhoto = (v, i) => {
      const line = i % 2 ? placed.rows : placed.columns;
      return Math.min(Math.max((v - line.offset) / line.scale, 0), line.photo);
    };
    for (const one of found) one.box = one.box.map(inPhoto);
  }
  return found.slice(0, MOST);
}
