"""Peak memory of two runs in a process of its own, in MiB: ``method_memory.py FILE BATCH [METHOD]``.

What loading took is left out as far as it was freed: the peak is that of the runs. Without a method
it is the plain forward pass in ONNX Runtime. The instrumented model comes from the cache. Linux.
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np


def peak() -> float:
    """Return the largest resident memory since it was last cleared, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmHWM")


def loaded(file: str, images: np.ndarray, method: str) -> Callable[[], object]:
    """Return what is run."""
    if not method:
        import onnxruntime

        plain = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda: plain.run(None, {plain.get_inputs()[0].name: images})
    import onnxcam

    explainer = onnxcam.Explainer(
        file, method=method, preprocess="unit", providers="cpu", cache=True
    )
    return lambda: explainer.explain_batch(images)


def measured(file: Path, batch: int, method: str = "") -> float | None:
    """Return the peak of runs in a process of its own; ``None`` where that process failed."""
    command = [sys.executable, __file__, str(file), str(batch), method]
    done = subprocess.run(command, capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else None


def main(file: str, batch: str, method: str = "") -> None:
    warnings.simplefilter("ignore")
    images = np.random.default_rng(0).normal(size=(int(batch), 3, 224, 224)).astype(np.float32)
    run = loaded(file, images, method)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    start = time.perf_counter()
    run()
    if time.perf_counter() - start < 2:  # else it was many runs
        run()  # from the second run on, ONNX Runtime plans its memory ahead
    print(peak())


if __name__ == "__main__":
    main(*sys.argv[1:])
