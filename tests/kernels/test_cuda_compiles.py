"""The CUDA kernels through the real compiler, to PTX for an H200; needs no GPU.

pip install 'numba-cuda[cu13]'; pytest tests/kernels/test_cuda_compiles.py

The simulator runs any Python; this finds what Numba cannot type or lower, and arrays that the
compiler could not keep in registers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("the simulator does not compile", allow_module_level=True)
pytest.importorskip("numba_cuda", reason="needs numba-cuda")
pytest.importorskip("nvidia.cu13", reason="needs numba-cuda[cu13]")

from numba import cuda
from numba.cuda import types
from numba.cuda.core.errors import NumbaPerformanceWarning

from onnxcam.kernels import cuda_arrays, cuda_paint, cuda_pictures, cuda_rows, cuda_sums

from .machine import ptx

integer, number, flag = types.int64, types.float64, types.boolean
floats, halves, pixels = types.float32[::1], types.float16[::1], types.uint8[::1]
view = types.UniTuple(integer, 8), types.UniTuple(number, 4)


def sums(values: types.Type, weights: types.Type) -> tuple[types.Type, ...]:
    return (values, weights, floats, *[integer] * 4)


# What the tests in the emulator do not compile: float16 beside float32.
CASES = {
    f"{kernel.py_func.__name__}-{values.dtype}-{others.dtype}": (kernel, signature(values, others))
    for kernel, signature, pairs in (
        (
            cuda_sums.weigh,
            lambda v, w: (*sums(v, w), flag, integer, flag),
            [(halves, halves), (floats, halves)],
        ),
        (
            cuda_rows.combine_rows(2),
            lambda v, w: (*sums(v, w), flag),
            [(halves, floats), (floats, halves)],
        ),
        (
            cuda_pictures.fuse,
            lambda v, w: (v, w, floats, integer, *view),
            [(halves, floats), (floats, halves)],
        ),
        (
            cuda_paint.paint,
            lambda v, w: (pixels, v, floats, pixels, pixels, *view, number, number),
            [(halves, halves)],
        ),
    )
    for values, others in pairs
}


@pytest.mark.parametrize("name", CASES)
def test_compiles(name: str) -> None:
    assert ".target sm_90" in ptx(*CASES[name])


def test_arrays_outside_of_registers_are_found() -> None:
    @cuda.jit
    def spilled(values, out):
        kept = cuda.local.array(64, types.float32)
        for i in range(64):
            kept[i] = values[i]
        out[0] = kept[int(values[64])]

    with pytest.raises(AssertionError, match="local memory"):
        ptx(spilled, (floats, floats))


def test_small_grids_are_no_reason_to_warn() -> None:
    with pytest.warns(NumbaPerformanceWarning):
        cuda_sums.finish[(2,), cuda_arrays.THREADS, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = cuda_arrays._configured(cuda_sums.finish, (3,), 0)
    assert cuda_arrays._configured(cuda_sums.finish, (3,), 0) is first, "kept"
    with pytest.warns(NumbaPerformanceWarning):  # the user's own kernels are the user's business
        cuda_sums.finish[(4,), cuda_arrays.THREADS, 0]


def test_numpy_without_row_stack() -> None:
    """NumPy 2.5 has none; numba-cuda before 0.31 names it on import."""
    script = (
        "import numpy as np; del np.row_stack\n"
        "from onnxcam.kernels import cuda\n"
        "assert not hasattr(np, 'row_stack')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
