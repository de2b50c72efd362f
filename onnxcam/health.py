"""What works here and what does not, each found out by trying; nothing here raises."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onnxcam.files import cache_folder
from onnxcam.runtime.gpu import CUDA, Gpu, cuda_problem, find_gpu, load_problem

LARGEST_ERROR = 1e-5  # of the largest magnitude that a sum can have; of grey levels, 2


def _tried(probe: Callable[[], str]) -> str:
    """Run a probe; whatever it raises is its finding."""
    try:
        return probe()
    except Exception as error:
        text = " ".join(str(error).split())
        return f"failed: {type(error).__name__}: {text[:300]}"


def describe_gpu() -> str:
    """Return what the driver says of the GPU, or why there is none."""

    def probe() -> str:
        gpu = find_gpu()
        return str(gpu) if isinstance(gpu, Gpu) else f"none: {gpu}"

    return _tried(probe)


def describe_runtime(runtime: Any) -> str:
    """Return the installed flavour of ONNX Runtime and its version."""
    built = str(getattr(runtime, "cuda_version", "") or "")
    flavour = f"built for CUDA {built}" if built else "built for the CPU"
    if not built and CUDA in runtime.get_available_providers():
        flavour = "built for CUDA"
    return f"{runtime.__version__}, {flavour}"


def check_provider(runtime: Any) -> str:
    """Run a one-node model with the CUDA provider."""

    def probe() -> str:
        problem = cuda_problem(runtime)
        if problem is not None:
            return f"not usable: {problem}"
        import onnx.parser

        from onnxcam.runtime.session import Session

        model = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 13]> one (float[N] x) => (float[N] y) '
            "{ y = Relu (x) }"
        )
        session = Session(model.SerializeToString(), Path(), "cuda", "a one-node model")
        found = session.run({"x": np.array([-1, 2], np.float32)})["y"]
        if found.tolist() != [0, 2]:
            return f"not usable: {load_problem(runtime)} (Relu gave {found.tolist()})"
        return "ok: ran a one-node model"

    return _tried(probe)


def check_kernels(name: str) -> str:
    """Compare ``combine`` of the CPU kernels in use with the reference."""

    def probe() -> str:
        from onnxcam.kernels import kernels, reference

        if kernels() is reference:
            return "ok: the others are measured by it"
        rng = np.random.default_rng(0)
        a = rng.uniform(-1, 1, (2, 64, 7, 7)).astype(np.float32)
        g = rng.uniform(-1, 1, (2, 3, 64, 7, 7)).astype(np.float32)
        error = np.abs(kernels().combine(a, g) - reference.combine(a, g)).max() / 64
        return _verdict({"combine": float(error)}, f"{name} against the reference")

    return _tried(probe)


def check_cuda_kernels(gpu: str, *names: str) -> str:
    """Compare the CUDA kernels with the reference: those named, or all."""

    def probe() -> str:
        import importlib.util

        if importlib.util.find_spec("numba_cuda") is None:
            return "not installed: numba-cuda comes with 'pip install onnxcam[gpu]'"
        simulated = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
        if not simulated and gpu.startswith(("none", "failed")):
            return "not usable: they need a GPU and its driver"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Numba's hints about small grids
            from onnxcam.kernels import cuda

            errors = cuda.check(*names)
        where = "cuda in Numba's simulator" if simulated else "cuda"
        return _verdict(errors, f"{where} against the reference")

    finding = _tried(probe)
    if finding.startswith("failed") and os.environ.get("CUDA_HOME") == "":
        finding += "; CUDA_HOME is set and empty, where Numba looks for CUDA: 'unset CUDA_HOME'"
    return finding


def warm(gpu: str) -> str:
    """Compile every CUDA kernel into the cache and run it; say what was done."""
    folder = cache_folder() / "cuda"
    if os.environ.get("NUMBA_CACHE_DIR"):
        folder = Path(os.environ["NUMBA_CACHE_DIR"])
    before, start = _entries(folder), time.perf_counter()
    finding = check_cuda_kernels(gpu)
    if not finding.startswith("ok"):
        return finding
    if "simulator" in finding:
        return f"{finding}; nothing is compiled in the simulator"
    seconds, fresh = time.perf_counter() - start, _entries(folder) - before
    done = f"compiled {fresh} kernels into {folder}" if fresh else f"all were in {folder}"
    return f"{finding}; {done}, {seconds:.1f} s"


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*.nbc"))


def _verdict(errors: dict[str, float], what: str) -> str:
    levels = errors.get("paint", 0.0)
    largest = max((error for name, error in errors.items() if name != "paint"), default=0.0)
    good = largest <= LARGEST_ERROR and levels <= 2
    names = ", ".join(errors)
    return f"{'ok' if good else 'WRONG'}: {what} ({names}: largest error {largest:.1e})"
