"""What the GPU code in Numba CUDA shares, :mod:`cuda_sums` and :mod:`cuda_pictures`.

Not yet run on a GPU: so far checked in Numba's simulator, and compiled to PTX for compute
capability 9.0 (``tests/kernels/test_cuda.py``).

Arrays are flat and contiguous. Neighbouring threads read and write neighbouring elements, four
to eight loads stand before their first use, and a block's threads meet in shared memory only:
the simulator knows no shuffles. Sums start in float32 over a few dozen terms and are added up in
float64. Blocks are one-dimensional, of :data:`THREADS` threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from numba import cuda, float32, uint64
from numba.cuda.core import config

from onnxcam.files import cache_folder

SIMULATED = bool(config.ENABLE_CUDASIM)
THREADS = 16 if SIMULATED else 256  # of a block; the simulator's are Python's


@contextlib.contextmanager
def own_cache() -> Iterator[None]:
    """Let Numba keep compiled kernels in onnxcam's cache, unless the user chose a folder."""
    before = config.CACHE_DIR
    with contextlib.suppress(RuntimeError, OSError):  # no home, or read-only: Numba looks itself
        folder = cache_folder() / "cuda"
        if not before:
            folder.mkdir(parents=True, exist_ok=True)
        config.CACHE_DIR = before or str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before


def compiled(function):
    """Compile a kernel on its first call, and keep it on disk where there is a place for it."""
    with own_cache():
        try:
            return cuda.jit(cache=True)(function)
        except RuntimeError:
            return cuda.jit(function)


@cuda.jit(device=True)
def read(values, at):
    """Return one value; an unsigned index spares the test for a negative one."""
    return float32(values[uint64(at)])
