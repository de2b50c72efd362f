"""The CUDA kernels through the real compiler, to PTX for an H200; needs no GPU.

pip install 'numba-cuda[cu13]'; pytest tests/kernels/test_cuda_compiles.py

The simulator runs any Python; this finds what Numba cannot type or lower.
"""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("the simulator does not compile", allow_module_level=True)
pytest.importorskip("numba_cuda", reason="needs numba-cuda")
pytest.importorskip("nvidia.cu13", reason="needs numba-cuda[cu13]")

from numba import cuda
from numba.cuda import dispatcher, types

from onnxcam.kernels import cuda_pictures, cuda_sums

CAPABILITY = (9, 0)
integer, number, flag = types.int64, types.float64, types.boolean
floats, halves, pixels = types.float32[::1], types.float16[::1], types.uint8[::1]
view = types.UniTuple(integer, 8), types.UniTuple(number, 4)


def signatures(values: types.Type) -> dict[str, tuple[types.Type, ...]]:
    return {
        "combine": (values, values, floats, *[integer] * 6, flag),
        "pool": (values, floats, *[integer] * 4),
        "pool_long": (values, floats, integer),
        "weigh": (values, values, floats, *[integer] * 4, flag, flag),
        "finish": (floats, floats, integer, integer, flag),
        "peaks": (values, floats, *view),
        "upsample": (values, floats, floats, *view, flag),
        "fuse": (values, values, floats, integer, *view),
        "paint": (pixels, values, floats, pixels, pixels, *view, number, number),
    }


@pytest.mark.parametrize("values", [floats, halves], ids=["float32", "float16"])
@pytest.mark.parametrize("name", sorted(signatures(floats)))
def test_compiles(name: str, values: types.Type, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(compute_capability=CAPABILITY)
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: gpu)
    kernel = getattr(cuda_sums, name, None) or getattr(cuda_pictures, name)
    ptx, _ = cuda.compile_ptx(kernel.py_func, signatures(values)[name], cc=CAPABILITY, opt=True)
    assert ".target sm_90" in ptx
    assert ".local" not in ptx, "arrays or spills in local memory"


def test_combine_has_eight_loads_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(compute_capability=CAPABILITY)
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: gpu)
    kernel = cuda_sums.combine.py_func
    ptx, _ = cuda.compile_ptx(kernel, signatures(floats)["combine"], cc=CAPABILITY, opt=True)
    moves = [line.split()[0] for line in ptx.splitlines() if "ld.global" in line or "st." in line]
    assert any(moves[i : i + 8] == ["ld.global.f32"] * 8 for i in range(len(moves)))
