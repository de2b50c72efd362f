"""The emulator finds what is planted: each kernel here has one fault."""

from __future__ import annotations

import os

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("the simulator does not compile", allow_module_level=True)
pytest.importorskip("numba_cuda", reason="needs numba-cuda")
pytest.importorskip("nvidia.cu13", reason="needs numba-cuda[cu13]")

from numba import cuda, float32, int32

from .emulator import KernelError
from .machine import Machine, machine

__all__ = ["machine"]


@cuda.jit
def reversed_(values, out, wait):
    """Reverse 256 values in shared memory, with or without the barrier."""
    stage = cuda.shared.array(256, float32)
    me = cuda.threadIdx.x
    stage[me] = values[cuda.blockIdx.x * 256 + me]
    if wait:
        cuda.syncthreads()
    out[cuda.blockIdx.x * 256 + me] = stage[255 - me]


@cuda.jit
def beyond(values, out):
    out[cuda.threadIdx.x] = values[cuda.threadIdx.x + 1]


@cuda.jit
def twice(values, out):
    out[cuda.threadIdx.x // 2] = values[cuda.threadIdx.x]


@cuda.jit
def unwritten(values, out):
    stage = cuda.shared.array(256, float32)
    if cuda.threadIdx.x < 100:
        stage[cuda.threadIdx.x] = values[cuda.threadIdx.x]
    cuda.syncthreads()
    out[cuda.threadIdx.x] = stage[cuda.threadIdx.x]


@cuda.jit
def apart(values, out):
    if values[cuda.threadIdx.x] > 0:
        cuda.syncthreads()
        out[cuda.threadIdx.x] = 1
    else:
        cuda.syncthreads()
        out[cuda.threadIdx.x] = 2


@cuda.jit
def shuffled(values, out):
    me = int32(cuda.threadIdx.x)
    value = values[me]
    if value > 0:
        value += cuda.shfl_xor_sync(0xFFFFFFFF, value, 1)
    out[me] = value


@cuda.jit
def read_back(values, out):
    out[cuda.threadIdx.x] = values[cuda.threadIdx.x]
    cuda.syncthreads()
    out[256 + cuda.threadIdx.x] = out[255 - cuda.threadIdx.x]


def test_a_missing_barrier_is_found(machine: Machine) -> None:
    values = np.random.default_rng(0).normal(size=512).astype("f")
    out = machine.device_array((512,), "f")
    machine.launch(reversed_, (2,), 0, machine.send(values), out, True)
    np.testing.assert_array_equal(out.data, values.reshape(2, 256)[:, ::-1].ravel())
    with pytest.raises(KernelError, match="race between a write and a read"):
        machine.launch(reversed_, (2,), 0, machine.send(values), out, False)


@pytest.mark.parametrize(
    ("kernel", "what"),
    [
        (beyond, "read out of bounds"),
        (twice, "written twice"),
        (unwritten, "shared memory: read of what nobody wrote"),
        (apart, "threads of a block wait at different barriers"),
        (shuffled, "part of a warp does not reach"),
        (read_back, "read of what this kernel wrote"),
    ],
)
def test_faults_are_found(kernel: object, what: str, machine: Machine) -> None:
    values = np.random.default_rng(0).normal(size=256).astype("f")
    with pytest.raises(KernelError, match=what):
        machine.launch(kernel, (1,), 0, machine.send(values), machine.device_array((512,), "f"))


def test_inputs_are_not_written_and_results_not_read(machine: Machine) -> None:
    values, out = machine.send(np.ones(512, "f")), machine.device_array((512,), "f")
    with pytest.raises(KernelError, match="write to an input"):
        machine.launch(reversed_, (1,), 0, values, values, True)
    with pytest.raises(KernelError, match="^read of what nobody wrote"):
        machine.launch(reversed_, (1,), 0, out, out, True)
    with pytest.raises(KernelError, match="a grid of 1 x 65536 x 1 blocks"):
        machine.launch(reversed_, (1, 65536), 0, values, out, True)
