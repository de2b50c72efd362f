// Works off the main thread: prepares the photograph and runs the model.

import { fit, geometry, identity, normalise } from "./pixels.js";

const MOST_PIXELS = 89_478_485; // Pillow's limit, and so Python's

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  float16: globalThis.Float16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  int64: BigInt64Array,
};

let ort;
let page;
let session;
let current; // the prepared image: {feeds, placed}

function typed(dtype, numbers) {
  const kind = ARRAYS[dtype];
  if (!kind) throw new Error(`This browser has no ${dtype} numbers, which the model takes.`);
  return dtype === "int64" ? BigInt64Array.from(numbers, BigInt) : kind.from(numbers);
}

const tensor = (dtype, numbers, shape) => new ort.Tensor(dtype, typed(dtype, numbers), shape);

/** Fetch a file and say how much of it has come. */
async function fetched(url, said) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: the server answers ${answer.status}.`);
  const total = Number(answer.headers.get("Content-Length")) || 0;
  const parts = [];
  let have = 0;
  const reader = answer.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    have += part.value.length;
    said({ have, total: Math.max(total, have) });
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function open(given, said) {
  page = given;
  const base = new URL(".", self.location.href);
  ort = await import(new URL(page.runtime.module, base).href);
  ort.env.logLevel = "error";
  const at = (name) => new URL(page.runtime[name], base).href;
  ort.env.wasm.wasmPaths = { mjs: at("mjs"), wasm: at("wasm") };
  // Threads need pages that are isolated from other origins; without, one thread works everywhere.
  const threads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
  ort.env.wasm.numThreads = threads;
  const model = await fetched(new URL(page.model, base), said);
  const beside = await Promise.all(
    page.external.map(async (path) => ({ path, data: await fetched(new URL(path, base), said) })),
  );
  const options = { executionProviders: ["wasm"] };
  if (beside.length) options.externalData = beside;
  session = await ort.InferenceSession.create(model, options);
  return { threads };
}

function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    throw new Error(`The photograph has more than ${MOST_PIXELS} pixels; make it smaller first.`);
  }
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // under what is transparent, as in Python
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { data: context.getImageData(0, 0, width, height).data, width, height, channels: 4 };
}

function shapeOf({ layout, channels }, width, height) {
  if (layout === "NF") return [1, channels * height * width];
  return [...layout].map((letter) => ({ N: 1, C: channels, H: height, W: width })[letter]);
}

/** Take a photograph: prepare it, and keep it for the classes that are asked for. */
function photograph(bitmap) {
  const begun = performance.now();
  const image = pixelsOf(bitmap);
  const { width, height } = image;
  const takes = page.image;
  const placed = geometry(page.preprocess, width, height);
  if (takes.photograph) {
    // The model prepares the photograph by itself.
    const raw = new Uint8Array(width * height * 3);
    for (let p = 0; p < width * height; p++) {
      for (let c = 0; c < 3; c++) raw[p * 3 + c] = image.data[p * 4 + c];
    }
    current = { feeds: { [takes.name]: new ort.Tensor("uint8", raw, [height, width, 3]) }, placed };
  } else {
    const fitted = fit(image, page.preprocess, placed);
    const numbers = normalise(fitted, page.preprocess, takes.layout, takes.dtype);
    const shape = shapeOf(takes, fitted.width, fitted.height);
    current = { feeds: { [takes.name]: tensor(takes.dtype, numbers, shape) }, placed };
  }
  return { placed: current.placed, milliseconds: performance.now() - begun };
}

/** Take a ready tensor in place of a photograph, for scripts: numbers in the model's layout. */
function ready({ numbers, width, height }) {
  const shape = shapeOf(page.image, width, height);
  current = {
    feeds: { [page.image.name]: tensor(page.image.dtype, numbers, shape) },
    placed: identity(width, height),
  };
  return { placed: current.placed, milliseconds: 0 };
}

/** Run the model; `target` is the class to explain, -1 the predicted one. */
async function run(target) {
  const feeds = { ...current.feeds };
  if (page.target) {
    feeds[page.target] = new ort.Tensor("int64", BigInt64Array.of(BigInt(target)), [1, 1]);
  }
  const begun = performance.now();
  const found = await session.run(feeds, page.outputs);
  const milliseconds = performance.now() - begun;
  const outputs = {};
  for (const [name, value] of Object.entries(found)) {
    if (value.type === "float16" && value.data instanceof Uint16Array) typed("float16", []);
    outputs[name] = { dims: [...value.dims], data: Float32Array.from(value.data, Number) };
  }
  return { outputs, milliseconds };
}

const TASKS = { open, photograph, ready, run };

let before = Promise.resolve(); // one task at a time, in their order

self.onmessage = ({ data: { id, task, argument } }) => {
  before = before.then(async () => {
    try {
      const said = (progress) => self.postMessage({ id, progress });
      self.postMessage({ id, result: await TASKS[task](argument, said) });
    } catch (error) {
      self.postMessage({ id, error: error.message || String(error) });
    }
  });
};
