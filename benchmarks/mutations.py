"""Run the command line on many changed models and images, and list what goes wrong.

    python benchmarks/mutations.py models --count 1000 --seed 5 --keep wrong/
    python benchmarks/mutations.py gradients --count 1000 --seed 6

The last holds the gradient of every changed model that is explained against central differences.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import onnxcam
from onnxcam.errors import OnnxcamError
from onnxcam.gradient_check import check_gradient
from tests.mutations.cases import image_jobs, model_jobs
from tests.mutations.child import MEMORY
from tests.mutations.runs import run

JOBS = {"models": model_jobs, "images": image_jobs}


def gradients(folder: Path, count: int, seed: int) -> None:
    """Print how many changed models are explained, and whose gradient at the layer is wrong."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    explained = checked = 0
    for what, _, name in model_jobs(folder, count, seed):
        file = folder / name
        try:
            explainer = onnxcam.Explainer(file)
            explainer.explain(folder / "photo.png")
        except (OnnxcamError, MemoryError):
            continue
        explained += 1
        score, layer = explainer.plan.score, explainer.plan.layer.name
        try:  # which validates the file first, and knows no tensors that were added for maps
            made = onnxcam.add_gradients(file, score, layer)
            [found] = check_gradient(made, file, score, [layer], "random")
        except (OnnxcamError, MemoryError):
            continue
        checked += 1
        if found.problem or not found.error < 0.05:
            print(f"  {what}: {found}")
    print(f"{count} models, seed {seed}: {explained} explained, {checked} of these compared")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*JOBS, "gradients"])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--limit", type=float, default=20, help="seconds until a run hangs")
    parser.add_argument(
        "--keep", type=Path, help="folder for the files that something is wrong with"
    )
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.what == "gradients":
            gradients(folder, options.count, options.seed)
            return
        jobs = JOBS[options.what](folder, options.count, options.seed)
        outcomes = run(folder, jobs, options.limit)
        wrong = [o for o in outcomes if o.problem]
        if options.keep and wrong:
            options.keep.mkdir(parents=True, exist_ok=True)
            for outcome in wrong:
                shutil.copy(folder / outcome.file, options.keep)
    codes = Counter(o.code for o in outcomes if o.code is not None)
    print(
        f"{len(outcomes)} {options.what}, seed {options.seed}, {time.perf_counter() - start:.0f} s"
    )
    print(", ".join(f"exit code {c}: {n}" for c, n in sorted(codes.items())))
    print(f"slowest: {max(o.seconds for o in outcomes):.1f} s")
    print(f"wrong: {len(wrong)}")
    for outcome in wrong:
        print(f"  {outcome.file}: {outcome.what}: {outcome.problem}")


if __name__ == "__main__":
    main()
