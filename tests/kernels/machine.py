"""A stand-in for the GPU under :mod:`onnxcam.kernels.cuda`: arrays, streams, and the emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numba import cuda
from numba.cuda import dispatcher, types

from onnxcam.kernels import cuda as kernels
from onnxcam.kernels import cuda_arrays, cuda_common

from .emulator import Memory, Program

CAPABILITY = (9, 0)
_NUMBERS = {bool: types.boolean, int: types.int64, float: types.float64}


class Array:
    """An array on the machine, as Numba, CuPy or PyTorch would hand it in."""

    def __init__(self, data: np.ndarray, address: int) -> None:
        self.data, self.address = data, address
        self.shape, self.size, self.dtype = data.shape, data.size, data.dtype

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        data, dtype = (self.address, False), self.dtype.str
        return {"shape": self.shape, "typestr": dtype, "data": data, "strides": None, "version": 3}

    @property
    def device_ctypes_pointer(self) -> Any:
        return SimpleNamespace(value=self.address)

    def copy_to_host(self, stream: Any = 0) -> np.ndarray:
        return self.data


class Machine:
    """Attributes:
    launched: the name and grid of each kernel, in order.
    programs: the kernels that ran, by name.
    blocks: picks blocks of a grid to run, by default all.
    """

    def __init__(self) -> None:
        self.memory = Memory()
        self.launched: list[tuple[str, tuple[int, ...]]] = []
        self.programs: dict[str, Program] = {}
        self.blocks: Callable[[tuple[int, ...]], list[int]] | None = None

    def send(self, array: np.ndarray) -> Array:
        """Return a copy on the machine."""
        flat = np.ascontiguousarray(array).reshape(-1).copy()
        return Array(flat.reshape(array.shape), self.memory.add(flat))

    def device_array(self, shape: Any, dtype: Any, stream: Any = 0) -> Array:
        """Return memory that holds no values yet."""
        flat = np.full(int(np.prod(shape)), 77, dtype)
        flat.view(np.uint8)[:] = 0xFF  # NaN, where it is read all the same
        return Array(flat.reshape(shape), self.memory.add(flat, known=False))

    def at(self, address: int, size: int, typestr: str) -> Array:
        """Stand in for Numba's array over an address."""
        data = self.memory.arrays[(address >> 40) - 1].view(typestr)
        return Array(data[:size], address)

    def launch(self, kernel: Any, grid: tuple[int, ...], stream: Any, *args: Any) -> None:
        """Compile for the arguments' types, as Numba does, and run."""
        program = compiled(kernel, tuple(_type(a) for a in args))
        name = kernel.py_func.__name__
        self.launched.append((name, grid))
        if name not in self.programs:
            program.reset()
        self.programs[name] = program
        blocks = self.blocks(grid) if self.blocks else None
        program.run(self.memory, grid, cuda_common.THREADS, list(_values(args)), blocks)


def _type(value: Any) -> types.Type:
    if isinstance(value, Array):
        return types.Array(getattr(types, value.dtype.name), 1, "C")
    if isinstance(value, tuple):
        return types.UniTuple(_type(value[0]), len(value))
    return _NUMBERS[type(value)]


def _values(args: Any) -> Iterator[Any]:
    """What a launch hands over: of an array its control block, address, length and stride."""
    for value in args:
        if isinstance(value, Array):
            size = value.dtype.itemsize
            yield from (0, 0, value.size, size, value.address, value.size, size)
        elif isinstance(value, tuple):
            yield from _values(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield np.int64(value).view(np.uint64)
        else:
            yield value


@cache
def ptx(kernel: Any, signature: tuple[types.Type, ...]) -> str:
    """Compile a kernel for an H100 or H200, once for all tests."""
    device = SimpleNamespace(compute_capability=CAPABILITY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher, "get_current_device", lambda: device)
        text, _ = cuda.compile_ptx(kernel.py_func, signature, cc=CAPABILITY, opt=True)
    assert ".local" not in text, "arrays or spills in local memory"
    return str(text)


@cache
def compiled(kernel: Any, signature: tuple[types.Type, ...]) -> Program:
    """Return a kernel that the emulator runs."""
    return Program(ptx(kernel, signature))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with 132 multiprocessors in place of the GPU."""
    machine = Machine()
    monkeypatch.setattr(cuda_arrays, "_at", machine.at)
    monkeypatch.setattr(cuda_arrays, "processors", lambda: 132)
    monkeypatch.setattr(cuda_arrays, "_kept", SimpleNamespace())
    monkeypatch.setattr(
        cuda_arrays,
        "cuda",
        SimpleNamespace(device_array=machine.device_array, external_stream=lambda handle: handle),
    )
    monkeypatch.setattr(kernels, "launch", machine.launch)
    kernels._shares.cache_clear()
    return machine
