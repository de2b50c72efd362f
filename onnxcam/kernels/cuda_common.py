"""What the Numba CUDA code in :mod:`cuda_sums` and :mod:`cuda_pictures` shares.

Not yet run on a GPU: so far checked in Numba's simulator, and compiled to PTX for compute
capability 9.0 (``tests/kernels/test_cuda.py``).

Arrays are flat and contiguous. Neighbouring threads read and write neighbouring elements, and four
to eight loads are issued before their first use. A block's threads exchange values in shared memory
only, since the simulator has no shuffles. Up to a few dozen terms are summed in float32, and these
sums in float64. Blocks are one-dimensional, with :data:`THREADS` threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from numba import cuda, float32, uint64
from numba.cuda.core import config

from onnxcam.files import cache_folder

SIMULATED = bool(config.ENABLE_CUDASIM)
THREADS = 16 if SIMULATED else 256  # of a block; in the simulator they are Python threads


@contextlib.contextmanager
def own_cache() -> Iterator[None]:
    """Let Numba keep compiled kernels in onnxcam's cache, unless the user chose a folder."""
    before = config.CACHE_DIR
    with contextlib.suppress(RuntimeError, OSError):  # no home, or read-only: leave it to Numba
        folder = cache_folder() / "cuda"
        if not before:
            folder.mkdir(parents=True, exist_ok=True)
        config.CACHE_DIR = before or str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before


def compiled(function):
    """Compile a kernel on its first call, and cache it on disk if there is a folder for that."""
    with own_cache():
        try:
            return cuda.jit(cache=True)(function)
        except RuntimeError:
            return cuda.jit(function)


@cuda.jit(device=True)
def read(values, at):
    """Return one value; an unsigned index needs no test for negative ones."""
    return float32(values[uint64(at)])
