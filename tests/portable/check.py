"""Run the exported models in one runtime and compare with what the Explainer said.

python check.py RUNTIME FOLDER, RUNTIME being onnxruntime, openvino or reference. It needs NumPy and
the runtime alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Run = Callable[[dict[str, np.ndarray], list[str]], list[np.ndarray]]


def onnxruntime(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda feeds, names: session.run(names, feeds)


def openvino(path: Path) -> Run:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    # The default precision is bfloat16 on some processors.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(feeds: dict[str, np.ndarray], names: list[str]) -> list[np.ndarray]:
        found = compiled(feeds)
        return [found[compiled.output(name)] for name in names]

    return run


def reference(path: Path) -> Run:
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(str(path))
    return lambda feeds, names: session.run(names, feeds)


RUNTIMES = {"onnxruntime": onnxruntime, "openvino": openvino, "reference": reference}


def arrays(folder: Path, listed: list[dict]) -> dict[str, np.ndarray]:
    return {
        e["name"]: np.frombuffer((folder / e["file"]).read_bytes(), e["dtype"]).reshape(e["shape"])
        for e in listed
    }


def compare(entry: dict, name: str, found: np.ndarray, want: np.ndarray, here: bool) -> str:
    """Return how far an output is off, with ``!`` where that is too far."""
    if found.shape != want.shape:
        return f"! {name} has shape {list(found.shape)}, not {list(want.shape)}"
    off = float(np.abs(found.astype(np.float64) - want.astype(np.float64)).max())
    if want.dtype == np.uint8:
        return f"{name} {off:.0f} levels" if off <= 26 else f"! {name} {off:.0f} levels"
    if name.endswith("scores"):
        off /= max(1.0, float(np.abs(want).max()))
    most = entry["most" if here else "elsewhere"]
    bad = off > most or not np.isfinite(off)
    text = f"{name} {off:.1e}"
    if entry["correlation"] and not name.endswith("scores"):
        alike = float(np.corrcoef(found.ravel(), want.ravel())[0, 1])
        text += f" r={alike:.5f}"
        bad |= alike < entry["correlation"]
    return f"! {text}" if bad else text


def main() -> int:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    skipped = sys.argv[3:]
    failed = 0
    for entry in json.loads((folder / "manifest.json").read_text()):
        if entry["name"] in skipped:
            continue
        entry |= entry.get(kind, {})
        start = time.time()
        feeds, want = arrays(folder, entry["inputs"]), arrays(folder, entry["expected"])
        try:
            found = RUNTIMES[kind](folder / entry["model"])(feeds, list(want))
        except Exception as error:
            print(f"  {entry['name']:<10} ! {type(error).__name__}: {str(error)[:600]}")
            failed += 1
            continue
        here = kind == "onnxruntime"
        pairs = zip(want.items(), found, strict=True)
        said = [compare(entry, n, np.asarray(f), w, here) for (n, w), f in pairs]
        failed += any(s.startswith("!") for s in said)
        print(f"  {entry['name']:<10} {', '.join(said)}  ({time.time() - start:.1f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
