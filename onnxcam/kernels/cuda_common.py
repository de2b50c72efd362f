"""What the Numba CUDA code in :mod:`cuda_sums`, :mod:`cuda_rows`, ... shares.

Not yet run on a GPU: so far checked in Numba's simulator, compiled to PTX for compute capability
9.0, and that PTX run by an emulator (``tests/kernels``).

Arrays are flat and contiguous. Neighbouring threads read and write neighbouring elements, and as
many loads as registers allow are issued before their first use. What is indexed in loops of fixed
length stands in local arrays, which the compiler keeps in registers. A block's threads exchange
values in shared memory, and in :mod:`cuda_rows` by shuffles, which the simulator lacks. Up to a few
dozen terms are summed in float32, and these sums in float64. Blocks are one-dimensional, with
:data:`THREADS` threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from numba import cuda, float32, uint64
from numba.cuda.core import config

from onnxcam.files import cache_folder

SIMULATED = bool(config.ENABLE_CUDASIM)
THREADS = 16 if SIMULATED else 256  # of a block; in the simulator they are Python threads
WARP = 4 if SIMULATED else 32
WARPS = THREADS // WARP


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
    """Return one value as float32; an unsigned index needs no test for negative ones."""
    return float32(values[uint64(at)])
