"""A portable model's run over the plain model's, in other runtimes: python benchmarks/elsewhere.py

Options: --old PYTHON and --openvino PYTHON, interpreters that have onnxruntime 1.17 and OpenVINO;
--web FOLDER, the ``dist`` folder of npm's onnxruntime-web, for Chromium through Playwright.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import onnx

import onnxcam

ROOT = Path(__file__).parents[1]
PAIRS = 25
# Runs in an environment that need not have onnxcam.
CHILD = """
import statistics, sys, time
import numpy as np
from tests.portable.check import RUNTIMES
runtime, folder, name, shape, pairs = sys.argv[1:]
image = np.random.default_rng(0).standard_normal(eval(shape), np.float32)
runs = []
for file, output in (("plain.onnx", open(f"{folder}/output").read()), ("cam.onnx", "heatmap")):
    run = RUNTIMES[runtime](f"{folder}/{file}")
    runs.append(lambda run=run, output=output: run({name: image}, [output]))
ratios = []
for _ in range(int(pairs) + 2):
    times = []
    for run in runs:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    ratios.append(times[1] / times[0])
print(f"{statistics.median(ratios[2:]):.3f}")
"""
PAGE = """<!doctype html><title>portable over plain</title><script type="module">
import * as ort from "./ort.wasm.bundle.min.mjs";
ort.env.wasm.numThreads = 1;
window.measure = async (name, shape, pairs) => {
  const data = Float32Array.from({length: shape.reduce((a, b) => a * b)}, (_, i) => Math.sin(i));
  const feeds = {[name]: new ort.Tensor("float32", data, shape)};
  const sessions = [];
  for (const file of ["plain.onnx", "cam.onnx"]) sessions.push(await ort.InferenceSession.create(file));
  const ratios = [];
  for (let i = 0; i < pairs + 2; i++) {
    const times = [];
    for (const session of sessions) {
      const start = performance.now();
      await session.run(feeds);
      times.push(performance.now() - start);
    }
    if (i > 1) ratios.push(times[1] / times[0]);
  }
  return ratios.sort((a, b) => a - b)[ratios.length >> 1];
};
window.ready = true;
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def by_python(python: str, runtime: str, folder: Path, name: str, shape: tuple[int, ...]) -> str:
    arguments = [runtime, str(folder), name, repr(shape), str(PAIRS)]
    done = subprocess.run(
        [python, "-c", CHILD, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def in_chromium(dist: Path, folder: Path, name: str, shape: tuple[int, ...]) -> str:
    from playwright.sync_api import sync_playwright

    for file in (
        "ort.wasm.bundle.min.mjs",
        *(f"ort-wasm-simd-threaded.{e}" for e in ("mjs", "wasm")),
    ):
        shutil.copy(dist / file, folder)
    (folder / "index.html").write_text(PAGE)
    serve = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.wait_for_function("window.ready")
        arguments = json.dumps([name, shape, PAIRS])
        found = page.evaluate(f"measure(...{arguments})")
        browser.close()
    server.shutdown()
    return f"{found:.3f}"


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--old", "--openvino"):
        parser.add_argument(name)
    parser.add_argument("--web", type=Path)
    parser.add_argument("models", nargs="*", type=Path)
    asked = parser.parse_args()
    for model in asked.models or [onnxcam.default_model()]:
        for batch in (1, 8):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                # An optional input is refused by onnxruntime-web and a constant to OpenVINO.
                made = onnxcam.export(model, folder / "cam.onnx", targets="top:1", batch=batch)
                shutil.copy(model, folder / "plain.onnx")
                output = onnx.load(model, load_external_data=False).graph.output[0].name
                (folder / "output").write_text(output)
                name = made.plan.image.name
                shape = (batch, *(d or 224 for d in made.plan.image.shape))
                found = {}
                for where, python, runtime in (
                    ("onnxruntime", sys.executable, "onnxruntime"),
                    ("onnxruntime 1.17", asked.old, "onnxruntime"),
                    ("OpenVINO", asked.openvino, "openvino"),
                ):
                    if python:
                        found[where] = by_python(python, runtime, folder, name, shape)
                if asked.web:
                    found["Chromium"] = in_chromium(asked.web, folder, name, shape)
                said = ", ".join(f"{where} {ratio}" for where, ratio in found.items())
                print(f"{model.stem}, batch {batch}: {said}", flush=True)


if __name__ == "__main__":
    main()
