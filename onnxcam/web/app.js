// The page: photographs come in, the engine explains them, the view shows it.

import { Engine } from "./engine.js";
import { choice, choices, classOf, heatmapOf, readPage } from "./page.js";
import { onPhotograph, whereabouts } from "./paint.js";
import { identity } from "./pixels.js";
import { listen } from "./sources.js";
import * as view from "./view.js";

const $ = (id) => document.getElementById(id);
const READ = { imageOrientation: "from-image", colorSpaceConversion: "none" };
const engine = new Engine();

let page; // what the exporter wrote
let threads; // that the model runs on
let photo; // what is explained: {placed, shown, items, results by target, ...}
let asked = 0; // counts photographs, so that a slow answer to an old one is passed over
const state = { target: -1, method: "" };
let linked = -1; // the target that the address asks for, of the first photograph

function complain(error) {
  view.busy(false);
  view.text("problem", error.message);
  view.text("status", "");
}

/** Run a task, and show what goes wrong. */
const guarded = (task) => (...all) => task(...all).catch(complain);

async function begin() {
  page = await readPage();
  view.text("title", `Where did ${page.title} look?`);
  document.title = `${page.title}: where did it look?`;
  fromAddress();
  $("example").hidden = !page.example;
  $("methods").hidden = page.methods.length < 2;
  $("another").hidden = !page.target || !page.scores || Boolean(page.detector);
  view.text("why", page.detector ? "Why this detection?" : "Why this class?");
  view.text("status", "Loading the model.");
  ({ threads } = await engine.open(
    { ...page, colours: null, labels: null },
    ({ have, total }) => Object.assign($("progress"), { value: have, max: total }),
  ));
  $("progress").hidden = true;
  view.text("status", "Ready.");
  for (const id of ["open", "shoot", "example"]) $(id).disabled = false;
  const options = (page.labels ?? []).map((name, n) => new Option("", `${name} (${n})`));
  $("labels").replaceChildren(...options);
  document.body.classList.add("ready");
}

/** Explain a photograph, a file or a blob. */
async function take(file) {
  const own = ++asked;
  view.busy(true);
  await opened; // a photograph that is dropped early waits for the model
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, READ);
  } catch {
    throw new Error(`${file.name ?? "That"} is no picture that this browser can read.`);
  }
  if (own !== asked) return; // another photograph was given meanwhile
  const { width, height } = bitmap;
  const shown = view.showPhotograph(bitmap);
  await look({ width, height, shown, name: file.name }, () => engine.photograph(bitmap));
}

/** Explain a ready tensor; for scripts: {numbers, width, height}. */
async function takeTensor(tensor) {
  asked++;
  view.busy(true);
  await opened;
  const bitmap = await createImageBitmap(new ImageData(tensor.width, tensor.height));
  const shown = view.showPhotograph(bitmap);
  await look({ width: tensor.width, height: tensor.height, shown }, () => engine.ready(tensor));
}

async function look(given, prepare) {
  const own = asked;
  photo = null;
  view.clear();
  view.text("problem", "");
  view.text("answer", "");
  view.text("status", "Working.");
  document.body.classList.add("started");
  $("result").hidden = $("about").hidden = false;
  const prepared = await prepare();
  const first = await engine.run(-1);
  if (own !== asked) return;
  photo = { ...given, placed: prepared.placed, preparing: prepared.milliseconds, results: new Map() };
  photo.mapped = page.image.photograph ? identity(photo.width, photo.height) : photo.placed;
  photo.items = choices(page, first.outputs, photo.placed);
  photo.scores = first.outputs[page.scores?.output]?.data;
  const size = { data: new Float32Array(1), width: 1, height: 1 };
  const seen = onPhotograph(size, photo.placed, photo.shown.width, photo.shown.height);
  view.shade(seen.rows, seen.columns);
  view.text("status", "");
  if (!photo.items.length) {
    view.busy(false);
    list();
    view.text("answer", "The model detects nothing here.");
    return;
  }
  const explained = first.outputs[page.names.targets]?.data[0];
  for (const { row, target } of photo.items) {
    if (row !== undefined || target === explained) photo.results.set(target, first);
  }
  const wanted = offered(linked) ? linked : photo.items[0].target;
  linked = -1;
  list();
  await explain(wanted);
}

/** Whether a target of the address can be explained on this photograph. */
function offered(target) {
  const another = !$("another").hidden && target >= 0 && target < photo.scores.length;
  return another || photo.items.some((item) => item.target === target);
}

function list() {
  const items = photo.items.map((item) => ({ ...item, value: item.target }));
  view.listChoices("choices", items, state.target, guarded(explain));
  view.listBoxes(photo.items, photo, guarded(explain));
  const methods = page.methods.map(({ name }) => ({ value: name, name }));
  view.listChoices("method-choices", methods, state.method, (name) => {
    state.method = name;
    show();
  });
}

/** Explain a class or detection of the photograph; what was explained before is at hand. */
async function explain(target) {
  if (!photo) return;
  const own = asked;
  state.target = target;
  if (!photo.items.some((item) => item.target === target)) {
    photo.items.push(choice(page, photo.scores, target));
    list();
  }
  view.mark("choices", target);
  if (!photo.results.has(target)) {
    view.busy(true);
    const result = await engine.run(target);
    if (own !== asked) return;
    photo.results.set(target, result);
  }
  if (state.target === target) show();
}

function show() {
  const method = page.methods.find((m) => m.name === state.method) ?? page.methods[0];
  const item = photo.items.find(({ target }) => target === state.target);
  const result = photo.results.get(state.target);
  if (!result) return;
  const map = heatmapOf(result.outputs, method, item.row);
  const heat = onPhotograph(map, photo.mapped, photo.shown.width, photo.shown.height);
  view.showHeat(heat, page.colours);
  view.busy(false);
  view.mark("method-choices", method.name);
  $("seen").ariaLabel = `The photograph with the heatmap of ${item.name}`;
  view.text("caption", `${item.name}, ${item.score}, by ${method.name}`);
  const where = heat.peak > 0 ? `is ${whereabouts(heat)}` : "is nowhere: nothing speaks for it";
  view.text("answer", `${item.name}, ${item.score}. The hottest place, by ${method.name}, ${where}.`);
  facts(method, item, result);
  toAddress();
  photo.map = map;
}

function facts(method, item, result) {
  const isolated = threads > 1 ? "" : " (more where the server isolates the page)";
  view.listFacts({
    Model: page.title,
    Explained: `${item.name} (${item.target}): ${page.explained.score}`,
    Layer: page.explained.layer,
    Method: `${method.name}. ${method.citation}`,
    Photograph: `${photo.name ?? ""} ${photo.width} x ${photo.height}`.trim(),
    Preparing: `${photo.preparing.toFixed(0)} ms`,
    "Model and heatmap": `${result.milliseconds.toFixed(0)} ms on ${threads} thread(s)${isolated}`,
    "Made by": `onnxcam ${page.onnxcam}, onnxruntime-web ${page.runtime.version}`,
  });
}

/** Go to the next or the previous choice. */
async function step(by) {
  if (!photo?.items.length) return;
  const at = photo.items.findIndex(({ target }) => target === state.target);
  const next = (at + by + photo.items.length) % photo.items.length;
  await explain(photo.items[next].target);
}

/** The address keeps what is chosen, so that a link shows the same of another photograph. */
function toAddress() {
  const words = { class: state.target, method: state.method, opacity: $("opacity").value };
  if ($("side").checked) words.side = 1;
  history.replaceState(null, "", `#${new URLSearchParams(words)}`);
}

function fromAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const named = page.methods.find(({ name }) => name === words.get("method"));
  state.method = (named ?? page.methods[0]).name;
  linked = /^\d+$/.test(words.get("class")) ? Number(words.get("class")) : -1;
  if (words.has("opacity")) $("opacity").value = words.get("opacity");
  $("side").checked = words.has("side");
  arrange();
}

/** Opacity and arrangement; the browser blends, so that the slider costs nothing. */
function arrange() {
  $("heat").style.opacity = $("opacity").value / 100;
  view.text("percent", `${$("opacity").value} %`);
  $("plain").hidden = !$("side").checked;
  document.body.classList.toggle("side", $("side").checked);
}

for (const id of ["opacity", "side"]) {
  $(id).addEventListener("input", arrange);
  $(id).addEventListener("change", () => photo && toAddress());
}
$("another").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!photo) return;
  const target = classOf(page, $("wanted").value, photo.scores.length);
  if (target < 0) return complain(new Error(`No class is called "${$("wanted").value}".`));
  view.text("problem", "");
  guarded(explain)(target);
});
$("example").addEventListener(
  "click",
  guarded(async () => take(await (await fetch(page.example)).blob())),
);
document.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const busy = event.target.closest("input, textarea, select, dialog, video");
  if (!by || busy || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  guarded(step)(by);
});
listen(guarded(take));

// For scripts and for the tests of onnxcam.
globalThis.onnxcam = {
  explain: take,
  explainTensor: takeTensor,
  choose: explain,
  get page() { return page; },
  get photo() { return photo; },
  get heatmap() { return photo.map; },
  onPhotograph: (map, width, height) => onPhotograph(map, photo.mapped, width, height),
};

const opened = begin();
opened.catch(complain);
