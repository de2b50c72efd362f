"""Arrays on the device and streams, as the kernels take them.

Whatever costs time on the host is kept: Numba's views of memory, its streams, its launch
configurations, buffers. A call then costs little more than Numba's own launch.
"""

from __future__ import annotations

import math
import threading
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda.core import config
from numpy.typing import NDArray

from onnxcam.kernels.cuda_common import SIMULATED, THREADS

FLOATS = ("float32", "float16")
_EMPTY = SimpleNamespace(size=0)  # kernels are never called with it
_kept = threading.local()


def launch(kernel: Any, grid: tuple[int, ...], stream: Any, *args: Any) -> None:
    """Run a kernel with THREADS threads a block."""
    if SIMULATED:  # where a kernel is its own configuration, and has the last one
        kernel[grid, THREADS, stream](*args)
    else:
        _configured(kernel, grid, stream)(*args)


@lru_cache(1024)
def _configured(kernel: Any, grid: tuple[int, ...], stream: Any) -> Any:
    # Few blocks are what one image takes; Numba would warn of each.
    before = getattr(config, "CUDA_LOW_OCCUPANCY_WARNINGS", 0)
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
    try:
        return kernel[grid, THREADS, stream]
    finally:
        config.CUDA_LOW_OCCUPANCY_WARNINGS = before


def flat(array: Any, dtypes: tuple[str, ...]) -> Any:
    """Return a contiguous device array as one axis, without a copy.

    Raises:
        TypeError: it is not on the device, or has another dtype.
        ValueError: it is not contiguous.
    """
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None and not getattr(array, "__cuda_ndarray__", False):
        raise TypeError(
            f"{type(array).__name__}: the CUDA kernels take arrays on the device; send NumPy's "
            "with numba.cuda.to_device."
        )
    if interface is None:  # the simulator's
        _dtype(np.dtype(array.dtype).str, dtypes)
        if 0 in array.shape:
            return _EMPTY
        if not array.flags.c_contiguous:
            raise ValueError("the CUDA kernels take contiguous arrays.")
        return array.reshape(-1)
    size, strides = _dtype(interface["typestr"], dtypes), interface.get("strides")
    shape = tuple(interface["shape"])
    if 0 in shape:
        return _EMPTY
    if strides is not None and not _contiguous(shape, tuple(strides), size):
        raise ValueError("the CUDA kernels take contiguous arrays.")
    return _at(int(interface["data"][0]), math.prod(shape), interface["typestr"])


@cache
def _dtype(typestr: str, dtypes: tuple[str, ...]) -> int:
    """Return the size of an element of one of the dtypes."""
    dtype = np.dtype(typestr)
    if dtype.name not in dtypes:
        raise TypeError(f"{dtype}: expected {' or '.join(dtypes)}.")
    return dtype.itemsize


@lru_cache(256)
def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> bool:
    steps = [size * math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return all(n == 1 or one == other for n, one, other in zip(shape, strides, steps, strict=True))


@lru_cache(256)
def _at(address: int, size: int, typestr: str) -> Any:
    """Return Numba's array over memory that somebody else owns."""
    array = {"shape": (size,), "typestr": typestr, "data": (address, False), "version": 3}
    return cuda.from_cuda_array_interface(array, sync=False)


def words(pixels: Any) -> Any:
    """Return uint8 as uint32, without a copy; ``None`` where it does not lie on whole words."""
    if SIMULATED:
        return pixels.view(np.uint32) if pixels.size % 4 == 0 else None
    address = int(pixels.device_ctypes_pointer.value)
    return _at(address, pixels.size // 4, "<u4") if address % 4 == pixels.size % 4 == 0 else None


def stream_of(given: Any, array: Any) -> Any:
    """Return the stream to run on as Numba takes it, 0 for CUDA's default one.

    Args:
        given: Numba's, or a handle; ``None`` for what the array names.
        array: names a stream or none.
    """
    if given is None:
        interface = getattr(array, "__cuda_array_interface__", None) or {}
        given = interface.get("stream") or 0
    if not isinstance(given, int | np.integer):
        return given
    return 0 if given in (0, 1) else _external(int(given))  # 1 is CUDA's default stream


@lru_cache(64)
def _external(handle: int) -> Any:
    return cuda.external_stream(handle)


def readable(array: Any, other: Any) -> Any:
    """Return ``array``, or ``other`` in place of an empty one: kernels do not read it then."""
    return array if array.size else other


def result(out: Any, shape: tuple[int, ...], dtype: str, stream: Any) -> tuple[Any, Any]:
    """Return ``out``, or a new array if it is ``None``, and a flat view of it.

    Raises:
        ValueError: ``out`` has another shape, or is not contiguous.
        TypeError: it has another dtype.
    """
    if out is None:
        out = cuda.device_array(shape, np.dtype(dtype), stream=stream)
    elif tuple(out.shape) != shape:
        raise ValueError(f"out {tuple(out.shape)}: the result has shape {shape}.")
    return out, flat(out, (dtype,))


def scratch(name: str, size: int, stream: Any) -> Any:
    """Return a buffer of this thread and stream, which the next call may use again.

    One that became too small is kept for as long as the thread lives: a captured CUDA graph may
    still write to it. Sizes at least double, so that all take less than twice the last.
    """
    key = name, 0 if SIMULATED else int(stream)
    buffers = _kept.__dict__.setdefault("buffers", {}).setdefault(key, [])
    if not buffers or buffers[-1].size < size:
        size = max(size, 2 * buffers[-1].size) if buffers else size
        buffers.append(cuda.device_array(size, np.float32, stream=stream))
    return buffers[-1]


def to_host(array: Any, stream: Any = 0) -> NDArray[Any]:
    """Copy an array of Numba's to the host, and wait for it."""
    copied: NDArray[Any] = array.copy_to_host(stream=stream)
    own = stream or getattr(array, "stream", 0)
    if own and hasattr(own, "synchronize"):
        own.synchronize()  # Numba only queues the copy
    return copied


@cache
def processors() -> int:
    """Return how many multiprocessors the device has."""
    return 1 if SIMULATED else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)
