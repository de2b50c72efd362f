"""The functions of :mod:`onnxcam.kernels.reference` on the GPU, by Numba CUDA.

Not yet run on a GPU: so far checked in Numba's simulator and compiled to PTX.

Arguments and results are contiguous arrays on the device: anything with
``__cuda_array_interface__`` (CuPy, PyTorch, Numba, :class:`onnxcam.runtime.device.DeviceTensor`).
Nothing is copied to or from the host, and nothing waits: a result is ready for the next work on the
same ``stream``. By default that is the stream that the first array names, or CUDA's default one if
it names none, as in PyTorch. ``out`` is an array to write the result to, which saves an allocation.

The first call compiles for a second or two; the code is then kept on disk.
"""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import numpy as np

from onnxcam.errors import KernelsError
from onnxcam.kernels import reference, shapes
from onnxcam.kernels.view import View

if importlib.util.find_spec("numba_cuda") is None:
    raise KernelsError(
        "the CUDA kernels need numba-cuda, which comes with 'pip install onnxcam[gpu]'."
    )

from numba import cuda

from onnxcam.kernels import cuda_common, cuda_pictures, cuda_sums

if not cuda_common.SIMULATED and not hasattr(np, "row_stack") and version("numba-cuda") < "0.31":
    raise KernelsError(
        f"numba-cuda {version('numba-cuda')} does not compile with NumPy {np.__version__}: 'pip "
        'install "numpy<2.5"\'.'
    )

DeviceArray = Any  # numba.cuda's, or what offers the same interface
SIMULATED, THREADS = cuda_common.SIMULATED, cuda_common.THREADS
BLOCKS_A_PROCESSOR = 4  # with fewer blocks, channels are shared out among more
FEWEST_CHANNELS = 64  # of a share
_FLOATS = ("float32", "float16")
_EMPTY = SimpleNamespace(size=0)  # kernels are never called with it
_kept = threading.local()


def combine(
    activations: DeviceArray,
    gradients: DeviceArray,
    *,
    relu: bool = False,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """See :func:`onnxcam.kernels.reference.combine`; gradients and activations are read once."""
    n, t, *space = shapes.combined(tuple(activations.shape), tuple(gradients.shape), pixels=True)
    stream = _stream(stream, activations)
    a, g = _flat(activations, _FLOATS), _flat(gradients, _FLOATS)
    channels, places = int(activations.shape[1]), math.prod(space)
    if places > THREADS and n * t * channels:  # too large to pool and sum in one kernel
        weights = _scratch("weights", n * t * channels, stream)
        _pool(g, weights, n * t * channels, places, stream)
        return _weighted(a, weights, (n, t, *space), channels, False, relu, stream, out)
    out, result = _result(out, (n, t, *space), "float32", stream)
    if result.size:
        rows = max(min(cuda_sums.TILE // places, THREADS), 1)
        lanes = 1 << (THREADS // rows).bit_length() - 1
        shares, share = _shares(n * t, channels)
        target = result if shares == 1 else _scratch("partial", shares * result.size, stream)
        cuda_sums.combine[(n * t, shares), THREADS, stream](
            _readable(a, target), _readable(g, target), target, t, channels, places, share,
            rows, lanes, relu and shares == 1,
        )  # fmt: skip
        _finish(target, result, shares, relu, stream)
    return out


def combine_weighted(
    activations: DeviceArray,
    weights: DeviceArray,
    *,
    relu: bool = False,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """See :func:`onnxcam.kernels.reference.combine_weighted`."""
    shape = shapes.combined(tuple(activations.shape), tuple(weights.shape))
    stream = _stream(stream, activations)
    a, w = _flat(activations, _FLOATS), _flat(weights, _FLOATS)
    pixels = len(weights.shape) > 3
    return _weighted(a, w, shape, int(activations.shape[1]), pixels, relu, stream, out)


def upsample(
    raw: DeviceArray,
    view: View,
    *,
    normalise: bool = False,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """See :func:`onnxcam.kernels.reference.upsample`."""
    shape = shapes.upsampled(tuple(raw.shape), view)
    stream = _stream(stream, raw)
    maps, size = _flat(raw, _FLOATS), math.prod(shape[:-2])
    out, result = _result(out, shape, "float32", stream)
    if result.size:
        peak = _peaks(maps, raw.shape, view, stream) if normalise else _scratch("peak", 1, stream)
        cuda_pictures.upsample[_picture_grid(size, view), THREADS, stream](
            _readable(maps, peak), peak, result, *_geometry(raw.shape, view), normalise
        )
    return out


def upsampled_max(raw: DeviceArray, view: View, *, stream: Any = None) -> float:
    """See :func:`onnxcam.kernels.reference.upsampled_max`; waits for the result."""
    shapes.upsampled(tuple(raw.shape), view)
    stream = _stream(stream, raw)
    return float(
        _peaks(_flat(raw, _FLOATS), raw.shape, view, stream).copy_to_host(stream=stream)[0]
    )


def fuse(
    guided: DeviceArray,
    raw: DeviceArray,
    view: View | None = None,
    *,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """See :func:`onnxcam.kernels.reference.fuse`; guided gradients are read once."""
    view = shapes.fused(tuple(guided.shape), tuple(raw.shape), view)
    stream = _stream(stream, guided)
    g, maps = _flat(guided, _FLOATS), _flat(raw, _FLOATS)
    out, result = _result(out, tuple(guided.shape), "float32", stream)
    if result.size:
        *outer, channels, _, _ = map(int, guided.shape)
        cuda_pictures.fuse[_picture_grid(math.prod(outer), view), THREADS, stream](
            g, _readable(maps, result), result, channels, *_geometry(raw.shape, view)
        )
    return out


def paint(
    photo: DeviceArray,
    raw: DeviceArray,
    view: View,
    colours: DeviceArray,
    alpha: float,
    shade: float,
    *,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """See :func:`onnxcam.kernels.reference.paint`."""
    given = tuple(photo.shape), tuple(raw.shape), view, tuple(colours.shape)
    shapes.painted(*given, alpha, shade)
    stream = _stream(stream, photo)
    pixels, table = _flat(photo, ("uint8",)), _flat(colours, ("uint8",))
    maps = _flat(raw, _FLOATS)
    out, result = _result(out, tuple(photo.shape), "uint8", stream)
    if result.size:
        peak = _peaks(maps, raw.shape, view, stream)
        cuda_pictures.paint[_picture_grid(1, view), THREADS, stream](
            pixels, _readable(maps, peak), peak, table, result,
            *_geometry(raw.shape, view), float(alpha), float(shade),
        )  # fmt: skip
    return out


def sent(value: Any) -> Any:
    """Return an array of the host's on the device; anything else as it is."""
    return cuda.to_device(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


def check(*names: str) -> dict[str, float]:
    """Run functions, by default all, on small arrays; compile those that are not on disk yet.

    Returns:
        For each function its largest error against the reference: for maps relative to the
        largest magnitude that goes into a sum, for pictures in grey levels.
    """
    worst: dict[str, float] = {}

    def compare(name: str, arrays: tuple[Any, ...], scale: float, *rest: Any, **how: Any) -> None:
        if names and name not in names:
            return
        expected = getattr(reference, name)(*arrays, *rest, **how)
        function: Callable[..., Any] = globals()[name]
        found = function(*map(cuda.to_device, arrays), *map(sent, rest), **how).copy_to_host()
        error = np.abs(found.astype(float) - expected).max() / scale
        worst[name] = max(worst.get(name, 0.0), float(error))

    rng = np.random.default_rng(0)
    view = View.whole((9, 11), (3, 4))
    photo = rng.integers(0, 256, (9, 11, 3)).astype(np.uint8)
    table = np.linspace(0, 255, 768).reshape(256, 3).astype(np.uint8)
    for dtype in _FLOATS:
        # Positions: up to a block's threads, up to TILE, beyond that (the simulator is slow).
        for channels, side in ((5, 3), (5, 17), (1, 65))[: 2 if SIMULATED else 3]:
            a = rng.uniform(-1, 1, (1, channels, side, side)).astype(dtype)
            g = rng.uniform(-1, 1, (1, 1, channels, side, side)).astype(dtype)
            compare("combine", (a, g), channels)
            compare("combine_weighted", (a, g), channels)
        many = rng.uniform(-1, 1, (2, 1, 400, 3)).astype(dtype)  # shared out among blocks
        compare("combine", (many[0], many[1:]), 400.0)
        raw = rng.uniform(0, 1, (2, 3, 4)).astype(dtype)
        compare("upsample", (raw,), 1.0, view, normalise=True)
        compare("fuse", (rng.uniform(-1, 1, (2, 3, 9, 11)).astype(dtype), raw), 1.0, view)
        compare("paint", (photo, raw[0]), 1.0, view, table, 0.5, 0.5)
    return worst


def _pool(g: Any, weights: Any, count: int, places: int, stream: Any) -> None:
    if places > cuda_sums.TILE:
        cuda_sums.pool_long[count, THREADS, stream](g, weights, places)
    else:
        rows = min(cuda_sums.TILE // places, THREADS)
        lanes = 1 << (THREADS // rows).bit_length() - 1
        cuda_sums.pool[-(-count // rows), THREADS, stream](g, weights, count, places, rows, lanes)


def _weighted(
    a: Any,
    w: Any,
    shape: tuple[int, ...],
    channels: int,
    pixels: bool,
    relu: bool,
    stream: Any,
    out: Any,
) -> Any:
    out, result = _result(out, shape, "float32", stream)
    if result.size:
        n, t, *space = shape
        places = math.prod(space)
        stretches = -(-places // THREADS)
        shares, share = _shares(n * t * stretches, channels)
        target = result if shares == 1 else _scratch("partial", shares * result.size, stream)
        cuda_sums.weigh[(n * t, shares, stretches), THREADS, stream](
            _readable(a, target), _readable(w, target), target, t, channels, places, share,
            pixels, relu and shares == 1,
        )  # fmt: skip
        _finish(target, result, shares, relu, stream)
    return out


def _shares(blocks: int, channels: int) -> tuple[int, int]:
    """Return into how many shares to split the channels, one for each block, and their size."""
    wanted = BLOCKS_A_PROCESSOR * _processors()
    shares = min(-(-wanted // blocks), max(channels // FEWEST_CHANNELS, 1)) if blocks else 1
    share = -(-channels // shares)
    return (-(-channels // share) if share else 1), share


def _finish(partial: Any, result: Any, shares: int, relu: bool, stream: Any) -> None:
    if shares > 1:
        blocks = -(-result.size // THREADS)
        cuda_sums.finish[blocks, THREADS, stream](partial, result, shares, result.size, relu)


def _peaks(maps: Any, shape: tuple[int, ...], view: View, stream: Any) -> Any:
    """Return the largest value of each map on its photograph."""
    count = math.prod(tuple(shape)[:-2])
    peak = _scratch("peak", max(count, 1), stream)
    cuda_pictures.peaks[max(count, 1), THREADS, stream](
        _readable(maps, peak), peak, *_geometry(shape, view)
    )
    return peak


def _picture_grid(count: int, view: View) -> tuple[int, int, int]:
    tall, wide = view.size
    return count, -(-tall // cuda_pictures.BAND), -(-wide // THREADS)


def _geometry(
    shape: tuple[int, ...], view: View
) -> tuple[tuple[int, ...], tuple[float, float, float, float]]:
    """Return the numbers of a view that kernels take; of an empty map nothing is visible."""
    height, width = int(shape[len(shape) - 2]), int(shape[len(shape) - 1])
    rows, columns = view.rows, view.columns
    seen = (rows.first, rows.last, columns.first, columns.last) if height * width else (0,) * 4
    return (
        (height, width, *view.size, *seen),
        (float(rows.scale), float(rows.offset), float(columns.scale), float(columns.offset)),
    )


def _flat(array: Any, dtypes: tuple[str, ...]) -> Any:
    """Return a contiguous device array as one axis, without a copy."""
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None and not getattr(array, "__cuda_ndarray__", False):
        raise TypeError(
            f"{type(array).__name__}: the CUDA kernels take arrays on the device; send NumPy's "
            "with numba.cuda.to_device."
        )
    dtype = np.dtype(array.dtype if interface is None else interface["typestr"])
    if dtype.name not in dtypes:
        raise TypeError(f"{dtype}: expected {' or '.join(dtypes)}.")
    shape = tuple(array.shape if interface is None else interface["shape"])
    if 0 in shape:
        return _EMPTY
    if interface is None:  # the simulator's
        if not array.flags.c_contiguous:
            raise ValueError("the CUDA kernels take contiguous arrays.")
        return array.reshape(-1)
    strides = interface.get("strides")
    steps = [dtype.itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape))]
    if strides is not None and any(
        n > 1 and one != other for n, one, other in zip(shape, strides, steps, strict=True)
    ):
        raise ValueError("the CUDA kernels take contiguous arrays.")
    return _at(int(interface["data"][0]), math.prod(shape), dtype.str)


@lru_cache(256)
def _at(address: int, size: int, typestr: str) -> Any:
    """Return Numba's array over memory that somebody else owns."""
    flat = {"shape": (size,), "typestr": typestr, "data": (address, False), "version": 3}
    return cuda.from_cuda_array_interface(flat, sync=False)


def _stream(given: Any, array: Any) -> Any:
    """Return the stream to run on: the given one, else the array's, else the default."""
    if given is not None:
        return given
    interface = getattr(array, "__cuda_array_interface__", None) or {}
    handle = interface.get("stream") or 1
    return 0 if handle == 1 else _external(handle)  # 1 is CUDA's default stream


@lru_cache(64)
def _external(handle: int) -> Any:
    return cuda.external_stream(handle)


def _readable(array: Any, other: Any) -> Any:
    """Return ``array``, or ``other`` in place of an empty one: kernels do not read it then."""
    return array if array.size else other


def _result(out: Any, shape: tuple[int, ...], dtype: str, stream: Any) -> tuple[Any, Any]:
    """Return ``out``, or a new array if it is ``None``, and a flat view of it."""
    if out is None:
        out = cuda.device_array(shape, np.dtype(dtype), stream=stream)
    elif tuple(out.shape) != shape:
        raise ValueError(f"out {tuple(out.shape)}: the result has shape {shape}.")
    return out, _flat(out, (dtype,))


def _scratch(name: str, size: int, stream: Any) -> Any:
    """Return a buffer of this thread and stream, which the next call may use again."""
    buffers = _kept.__dict__.setdefault("buffers", {})
    key = name, 0 if SIMULATED else int(stream)
    buffer = buffers.get(key)
    if buffer is None or buffer.size < size:
        buffer = buffers[key] = cuda.device_array(size, np.float32, stream=stream)
    return buffer


@cache
def _processors() -> int:
    if SIMULATED:
        return 1
    return int(cuda.get_current_device().MULTIPROCESSOR_COUNT)
