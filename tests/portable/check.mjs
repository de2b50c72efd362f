// Run the exported models in onnxruntime-node or onnxruntime-web and compare, as check.py does.
//
// node check.mjs onnxruntime-node|onnxruntime-web FOLDER MODULES
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [kind, folder, modules] = process.argv.slice(2);
const require = createRequire(join(modules, "node_modules", "x.js"));
const loaded = await import(pathToFileURL(require.resolve(kind)).href);
const ort = loaded.InferenceSession ? loaded : loaded.default;
if (kind === "onnxruntime-web") ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

const kinds = {
  float32: Float32Array,
  uint8: Uint8Array,
  int64: BigInt64Array,
};

function read(entry) {
  const bytes = readFileSync(join(folder, entry.file));
  const whole = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  return new kinds[entry.dtype](whole);
}

function correlation(a, b) {
  let [sa, sb, aa, bb, ab] = [0, 0, 0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    sa += a[i]; sb += b[i]; aa += a[i] * a[i]; bb += b[i] * b[i]; ab += a[i] * b[i];
  }
  const n = a.length;
  return (n * ab - sa * sb) / Math.sqrt((n * aa - sa * sa) * (n * bb - sb * sb));
}

function compare(entry, want, found) {
  const right = read(want);
  if (found === undefined) return `! ${want.name} is missing`;
  if (String(found.dims) !== String(want.shape)) return `! ${want.name} has shape ${found.dims}`;
  let [off, largest] = [0, 1];
  for (let i = 0; i < right.length; i++) {
    const d = Math.abs(found.data[i] - right[i]);
    off = d > off || Number.isNaN(d) ? d : off;
    largest = Math.max(largest, Math.abs(right[i]));
  }
  if (want.dtype === "uint8") return `${off <= 26 ? "" : "! "}${want.name} ${off} levels`;
  const scores = want.name.endsWith("scores");
  if (scores) off /= largest;
  let bad = !(off <= entry.elsewhere);
  let text = `${want.name} ${off.toExponential(1)}`;
  if (entry.correlation && !scores) {
    const alike = correlation(found.data, right);
    text += ` r=${alike.toFixed(5)}`;
    bad = bad || !(alike >= entry.correlation);
  }
  return bad ? `! ${text}` : text;
}

let failed = 0;
for (const entry of JSON.parse(readFileSync(join(folder, "manifest.json"), "utf-8"))) {
  const start = Date.now();
  let said;
  try {
    const session = await ort.InferenceSession.create(readFileSync(join(folder, entry.model)), {
      executionProviders: [kind === "onnxruntime-web" ? "wasm" : "cpu"],
      logSeverityLevel: 3,
    });
    const feeds = {};
    for (const input of entry.inputs) {
      feeds[input.name] = new ort.Tensor(input.dtype, read(input), input.shape);
    }
    const found = await session.run(feeds, entry.expected.map((e) => e.name));
    said = entry.expected.map((e) => compare(entry, e, found[e.name]));
  } catch (error) {
    said = [`! ${String(error).slice(0, 600)}`];
  }
  if (said.some((s) => s.startsWith("!"))) failed += 1;
  const seconds = ((Date.now() - start) / 1000).toFixed(1);
  console.log(`  ${entry.name.padEnd(10)} ${said.join(", ")}  (${seconds} s)`);
}
process.exit(failed ? 1 : 0);
