"""Check and time the GPU path on a real GPU, and print a Markdown section about it.

**Unverified on hardware.** No GPU was at hand when this was written: the script has run only as
``--rehearse``, where the CPU, NumPy and Numba's simulator stand in for the GPU, on tiny sizes.

    python benchmarks/gpu.py > gpu.md

Runs from the source tree, without the C kernels. Needs a GPU and its driver, CUDA, torch for
CUDA, onnx, onnx-ir, pillow, numba-cuda and onnxruntime-gpu. A section that cannot run says why,
and the next ones go on; what went wrong is on stderr in full. ``--only memory --only traffic`` runs
the sections whose titles have one of these words. No section is begun after ``--minutes``, 8.

    NUMBA_ENABLE_CUDASIM=1 python benchmarks/gpu.py --rehearse
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gpu_kernels
import gpu_network
from gpu_place import Place

PACKAGES = ("onnxcam", "torch", "onnxruntime-gpu", "onnxruntime", "numba-cuda", "numba", "onnx")


def versions() -> str:
    found = []
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


def section(title: str, run: Callable[[], str], only: list[str], until: float) -> None:
    """Print a section, or why there is none."""
    if only and not any(word.lower() in title.lower() for word in only):
        return
    print(f"### {title}\n", flush=True)
    start = time.monotonic()
    if start > until:
        print("Not run: the time is over.\n", flush=True)
        return
    try:
        print(run(), end="\n\n", flush=True)
        print(f"{title}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    except Exception as error:
        traceback.print_exc()
        text = " ".join(str(error).split())[:300]
        print(f"Not run: {type(error).__name__}: {text}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Check and time the GPU path.")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--only", action="append", default=[], help="a word of a section's title")
    parser.add_argument("--minutes", type=float, default=8, help="begin no section after these")
    given = parser.parse_args()
    rehearse, until = given.rehearse, time.monotonic() + 60 * given.minutes

    def part(title: str, run: Callable[[], str]) -> None:
        section(title, run, given.only, until)

    print("## On a GPU\n")
    try:
        place = Place(rehearse)
    except Exception as error:
        traceback.print_exc()
        print(f"Nothing was run: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        sys.exit(1)
    from onnxcam.runtime.gpu import find_gpu

    print(f"GPU: {place.name} ({find_gpu()}), Python {sys.version.split()[0]}; {versions()}.\n")

    @cache
    def peak() -> float:
        return gpu_kernels.bandwidth(place)

    def copy() -> str:
        return f"A copy moves {peak() / 1e12:.2f} TB/s, read and written."

    part("Kernels against the reference", lambda: gpu_kernels.check(place))
    part("Bandwidth, device to device", copy)
    part("Kernels against PyTorch", lambda: gpu_kernels.kernels(place, peak()))
    with tempfile.TemporaryDirectory() as folder:
        made: list[gpu_network.Network] = []

        def network() -> gpu_network.Network:
            if not made:
                made.append(gpu_network.Network(place, Path(folder)))
            return made[0]

        part("Grad-CAM over the forward pass", lambda: gpu_network.end_to_end(place, network()))
        part("Gradients on the device", lambda: gpu_network.shared_stream(place, network()))
        part("Whole explanations", lambda: gpu_network.explanations(place, network()))
        part("Traffic", lambda: gpu_network.traffic(place, network()))
        part("Memory", lambda: gpu_network.memory(place, network()))


if __name__ == "__main__":
    main()
