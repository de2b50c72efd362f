// What a detector sees: onnxcam/targets/detections.py, but for the scores, which the model gives.

const THRESHOLD = 0.25;
const OVERLAP = 0.5;
const MOST = 300;
const NEARLY_ALL = 0.95;
const GRIDS = [
  [[8, 16, 32], [1, 1, 1]],
  [[8, 16, 32, 64], [1, 1, 1, 1]],
  [[8, 16], [2, 6]],
  [[16, 32], [2, 6]],
  [[4], [1]],
]; // strides of scales, and boxes a cell
const LARGEST = 20;
const FEW = 2; // boxes of no greater coordinates are in parts of the image

const share = (list, test) => list.filter(test).length / list.length;

function plausible(boxes, [width, height]) {
  const inside = ([left, top, right, bottom]) => {
    const [x, y] = [(left + right) / 2, (top + bottom) / 2];
    return x >= 0 && x <= width && y >= 0 && y <= height && right > left && bottom > top;
  };
  return !boxes.length || share(boxes, inside) > NEARLY_ALL;
}

const around = (x, y, w, h) => [x - w / 2, y - h / 2, x + w / 2, y + h / 2];

/** Boxes from a grid of cells a scale, where there are as many as cells (YOLOX, BlazeFace). */
function* fromCells(rows, [width, height]) {
  for (const [strides, several] of GRIDS) {
    const grid = strides.flatMap((stride, n) => {
      const [across, down] = [Math.floor(width / stride), Math.floor(height / stride)];
      return Array.from({ length: across * down * several[n] }, (_, i) => {
        const cell = Math.floor(i / several[n]);
        return [cell % across, Math.floor(cell / across), stride];
      });
    });
    if (grid.length !== rows.length) continue;
    if (several.every((n) => n === 1)) {
      yield rows.map(([x, y, w, h], n) => {
        const [column, row, stride] = grid[n];
        const size = (v) => Math.exp(Math.min(v, LARGEST)) * stride;
        return around((x + column) * stride, (y + row) * stride, size(w), size(h));
      });
    }
    yield rows.map(([x, y, w, h], n) => {
      const [column, row, stride] = grid[n];
      return around(x + (column + 0.5) * stride, y + (row + 0.5) * stride, w, h);
    });
  }
}

/** Boxes as left, top, right, bottom in pixels of the input; null where that is not known. */
function corners(rows, kept, reading, size) {
  const ordered =
    reading.corners ?? share(rows, ([x, y, right, bottom]) => right > x && bottom > y) > NEARLY_ALL;
  let found = rows.map(([x, y, w, h]) =>
    ordered
      ? [Math.min(x, w), Math.min(y, h), Math.max(x, w), Math.max(y, h)]
      : around(x, y, w, h),
  );
  const largest = Math.max(0, ...kept.flatMap((n) => rows[n].map(Math.abs)));
  if (largest > 0 && largest <= FEW) {
    found = found.map((box) => box.map((v, i) => v * size[i % 2]));
  }
  const of = (boxes) => kept.map((n) => boxes[n]);
  if (!reading.offsets && plausible(of(found), size)) return found;
  for (const boxes of fromCells(rows, size)) if (plausible(of(boxes), size)) return boxes;
  return null;
}

function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const shared = Math.max(0, width) * Math.max(0, height);
  const area = (box) => Math.max(0, box[2] - box[0]) * Math.max(0, box[3] - box[1]);
  const whole = area(a) + area(b) - shared;
  return whole > 0 ? shared / whole : 0;
}

/** Leave out boxes that overlap a surer one of their class; the surest comes first. */
function apart(found, boxes, reading) {
  const limit = reading.overlap ?? OVERLAP;
  const kept = [];
  for (const one of found.slice(0, 10 * MOST)) {
    const same = kept.filter((other) => other.class === one.class);
    const clear = same.every((o) => overlap(boxes[one.row], boxes[o.row]) <= limit);
    if (!same.length || (same.length < (reading.most ?? MOST) && clear)) kept.push(one);
  }
  return kept;
}

/**
 * What a detector sees, the surest first.
 *
 * @param numbers of every row of its output: four of `boxes`, the best of `classes`, how `sure`.
 * @param reading how boxes are written, as surgeon/plan.py's DetectorFacts.
 * @param placed where the photograph lies in the input, as pixels.js' geometry() gives it.
 * @returns [{row, class, score, box: [left, top, right, bottom] of the photograph, or null}]
 */
export function detections({ boxes, classes, sure }, reading, placed) {
  const size = [placed.columns.input, placed.rows.input];
  const rows = Array.from(sure, (_, n) => Array.from(boxes.subarray(4 * n, 4 * n + 4)));
  const least = reading.threshold ?? THRESHOLD;
  let found = Array.from(sure, (score, row) => ({ row, class: classes[row], score }))
    .filter(({ score }) => score > least)
    .sort((a, b) => b.score - a.score);
  const places = corners(rows, found.map(({ row }) => row), reading, size);
  if (!reading.final && places) found = apart(found, places, reading);
  const inPhoto = (box) =>
    box.map((v, i) => {
      const line = i % 2 ? placed.rows : placed.columns;
      return Math.min(Math.max((v - line.offset) / line.scale, 0), line.photo);
    });
  return found
    .slice(0, MOST)
    .map((one) => ({ ...one, box: places && inPhoto(places[one.row]) }));
}
