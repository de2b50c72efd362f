// What is seen: pictures, lists of choices, words. Nothing here knows the model.

import { coloured } from "./paint.js";

const LONGEST = 1280; // pixels of the pictures that are shown; the model is given all there are
const $ = (id) => document.getElementById(id);

export const text = (id, words) => ($(id).textContent = words);

/** Show that something is computed. */
export function busy(on) {
  document.body.classList.toggle("busy", on);
  $("result").ariaBusy = on;
}

/** Draw a photograph, and return the size that it is shown in. */
export function showPhotograph(bitmap) {
  const shrink = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * shrink));
  const height = Math.max(1, Math.round(bitmap.height * shrink));
  for (const id of ["photo", "seen"]) {
    const canvas = $(id);
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
  }
  [$("heat").width, $("heat").height] = [width, height];
  return { width, height };
}

/** Darken what the network did not see: cropped borders. */
export function shade(rows, columns) {
  const canvas = $("seen");
  const context = canvas.getContext("2d");
  context.fillStyle = "rgb(0 0 0 / 50%)";
  const { width, height } = canvas;
  context.fillRect(0, 0, width, rows.first);
  context.fillRect(0, rows.last, width, height - rows.last);
  context.fillRect(0, rows.first, columns.first, rows.last - rows.first);
  context.fillRect(columns.last, rows.first, width - columns.last, rows.last - rows.first);
}

export function showHeat(heat, colours) {
  $("heat").getContext("2d").putImageData(coloured(heat, colours), 0, 0);
}

/** Take away what was said of another photograph. */
export function clear() {
  $("heat").getContext("2d").clearRect(0, 0, $("heat").width, $("heat").height);
  for (const id of ["boxes", "choices", "caption"]) $(id).replaceChildren();
}

/** List choices as radio buttons; `pick(value)` is called with the one that is chosen. */
export function listChoices(id, items, chosen, pick) {
  const rows = items.map(({ value, name, score, share, disabled }) => {
    const row = document.createElement("label");
    row.className = "choice";
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: id, value, disabled: Boolean(disabled) });
    input.checked = String(value) === String(chosen);
    input.addEventListener("change", () => pick(value));
    row.append(input, made("span", "name", name), made("span", "score", score ?? ""));
    if (share !== undefined) {
      const bar = made("span", "bar", "");
      bar.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
      row.append(bar);
    }
    return row;
  });
  $(id).replaceChildren(...rows);
}

/** Mark a choice, without telling anybody. */
export function mark(id, value) {
  for (const input of $(id).querySelectorAll("input")) input.checked = input.value === String(value);
  if (id === "choices") press(value);
}

/** Mark a box. Of many boxes the tabulator reaches this one; the arrows go to the others. */
function press(value) {
  const inside = $("boxes").contains(document.activeElement);
  for (const button of $("boxes").children) {
    const on = button.value === String(value);
    button.ariaPressed = on;
    button.tabIndex = on ? 0 : -1;
    if (on && inside) button.focus();
  }
}

/** Draw boxes over the picture as buttons; corners are in pixels of a photograph of this size. */
export function listBoxes(items, { width, height }, pick) {
  const per = (n, whole) => `${(100 * n) / whole}%`;
  // Small boxes lie over large ones, so that each can be clicked.
  const area = ({ box: [left, top, right, bottom] }) => (right - left) * (bottom - top);
  const boxes = items.filter((item) => item.box).sort((a, b) => area(b) - area(a));
  $("boxes").replaceChildren(
    ...boxes.map(({ target, name, score, box: [left, top, right, bottom] }) => {
      const button = made("button", "", "");
      Object.assign(button, { type: "button", value: target });
      button.ariaLabel = `${name}, ${score}`;
      button.style.left = per(left, width);
      button.style.top = per(top, height);
      button.style.width = per(right - left, width);
      button.style.height = per(bottom - top, height);
      const above = top > 0.08 * height; // else the label would stand outside the picture
      button.append(made("span", above ? "above" : "", `${name} ${score}`));
      button.addEventListener("click", () => pick(target));
      return button;
    }),
  );
}

/** Say facts as a list of terms. */
export function listFacts(facts) {
  const rows = Object.entries(facts).filter(([, value]) => value);
  $("facts").replaceChildren(...rows.flatMap(([n, v]) => [made("dt", "", n), made("dd", "", v)]));
}

function made(tag, kind, words) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.textContent = words;
  return element;
}
