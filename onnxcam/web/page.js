// What the exporter wrote beside the page (page.json), and how the model's outputs are read by it.

import { detections } from "./detections.js";

const SHOWN = 5;

/** Read page.json. */
export async function readPage() {
  const answer = await fetch(new URL("./page.json", import.meta.url));
  if (!answer.ok) throw new Error(`page.json: the server answers ${answer.status}.`);
  const page = await answer.json();
  page.colours = Uint8Array.from(atob(page.colours), (c) => c.charCodeAt(0));
  const own = page.scores ? [page.scores.output] : [];
  page.outputs = [...own, ...Object.values(page.names), ...page.methods.map((m) => m.heatmap)];
  return page;
}

/** The name of a class. */
export const nameOf = (page, index) => page.labels?.[index] ?? `class ${index}`;

/** A score for the reader: per cent where it is a share, else the number. */
export function said(score, isShare) {
  if (isShare) return `${(100 * score).toFixed(score < 0.0995 ? 1 : 0)} %`;
  return Math.abs(score) >= 1e5 ? score.toExponential(2) : score.toFixed(2);
}

/** The class that a user wrote: its name or number, or "name (number)"; -1 where there is none. */
export function classOf(page, words, count) {
  const wanted = words.trim().toLowerCase();
  const number = /^\d+$/.test(wanted) ? wanted : /\((\d+)\)$/.exec(wanted)?.[1];
  if (number !== undefined) return Number(number) < count ? Number(number) : -1;
  const labels = (page.labels ?? []).map((label) => label.toLowerCase());
  const exact = labels.indexOf(wanted);
  return exact >= 0 || wanted === "" ? exact : labels.findIndex((label) => label.includes(wanted));
}

/** One class that may be explained. */
export function choice(page, scores, index) {
  const isShare = page.scores.shares && scores.every((s) => s >= 0 && s <= 1);
  const share = isShare ? scores[index] : undefined;
  return { target: index, name: nameOf(page, index), score: said(scores[index], isShare), share };
}

/**
 * What may be explained on a photograph, the surest first: classes, or a detector's boxes.
 *
 * @returns [{target, row, name, score, share: 0 to 1 or undefined, box: corners or undefined}]; `row`
 *   is the target's place in the heatmaps, 0 where it is left out.
 */
export function choices(page, outputs, placed) {
  if (page.target && page.detector) return seen(page, outputs, placed);
  if (!page.target || !page.scores) return fixed(page, outputs);
  const scores = outputs[page.scores.output].data;
  const order = Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
  return order.slice(0, SHOWN).map((index) => choice(page, scores, index));
}

/** A detector's boxes. */
function seen(page, outputs, placed) {
  const [boxes, classes, sure] = ["boxes", "classes", "confidences"].map(
    (name) => outputs[page.names[name]]?.data,
  );
  return detections({ boxes, classes, sure }, page.detector, placed).map((found) => ({
    target: found.row,
    name: nameOf(page, found.class),
    score: said(found.score, true),
    share: found.score,
    box: found.box,
  }));
}

/** What the file explains, where it is fixed, or where no output lists all classes. */
function fixed(page, outputs) {
  const { scores, targets } = page.names;
  return Array.from(outputs[scores].data, (score, row) => {
    const name = targets ? nameOf(page, outputs[targets].data[row]) : page.explained.targets[row];
    return { target: row, row, name, score: said(score, false) };
  });
}

/** The heatmap of one method, {data, width, height}. */
export function heatmapOf(outputs, method, row = 0) {
  const { dims, data } = outputs[method.heatmap];
  const [height, width] = dims.slice(-2);
  const size = height * width;
  return { data: data.subarray(row * size, (row + 1) * size), width, height };
}
