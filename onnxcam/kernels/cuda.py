"""The functions of :mod:`onnxcam.kernels.reference` on the GPU, by Numba CUDA.

Not yet run on a GPU: so far checked in Numba's simulator, compiled to PTX, and that PTX run by an
emulator (``tests/kernels``).

Arguments and results are contiguous arrays on the device: anything with
``__cuda_array_interface__`` (CuPy, PyTorch, Numba, :class:`onnxcam.runtime.device.DeviceTensor`).
Nothing is copied to or from the host, and nothing waits: a result is ready for the next work on the
same ``stream``, a handle or Numba's. By default that is the stream that the first array names, or
CUDA's default one if it names none, as in PyTorch. ``out`` is an array to write the result to,
which saves an allocation.

Calls may be captured in a CUDA graph after one that was not, which compiles and allocates; the
thread that captured must live as long as the graph, and keeps its buffers.

The first call compiles for a second or two; the code is then kept on disk.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import KernelsError
from onnxcam.kernels import reference, shapes
from onnxcam.kernels.view import View

if importlib.util.find_spec("numba_cuda") is None:
    raise KernelsError(
        "the CUDA kernels need numba-cuda, which comes with 'pip install onnxcam[gpu]'."
    )

if not hasattr(np, "row_stack"):  # NumPy 2.5; numba-cuda before 0.31 names it once, on import
    np.row_stack = np.vstack
    importlib.import_module("numba.cuda.np.arrayobj")
    del np.row_stack

from numba import cuda

from onnxcam.kernels import cuda_arrays, cuda_paint, cuda_pictures, cuda_rows, cuda_sums
from onnxcam.kernels.cuda_arrays import FLOATS, flat, launch, readable, scratch, stream_of
from onnxcam.kernels.cuda_common import SIMULATED, THREADS, WARP

DeviceArray = Any  # numba.cuda's, or what offers the same interface
BLOCKS_A_PROCESSOR = 4  # with fewer blocks, channels are shared out among more
FEWEST_CHANNELS = 64  # of a share


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
    stream = stream_of(stream, activations)
    a, g = flat(activations, FLOATS), flat(gradients, FLOATS)
    channels, places = int(activations.shape[1]), math.prod(space)
    most = THREADS if SIMULATED else cuda_rows.MOST
    if places > most and n * t * channels:  # too large to pool and sum in one kernel
        weights = scratch("weights", n * t * channels, stream)
        _pool(g, weights, n * t * channels, places, stream)
        return _weighted(a, weights, (n, t, *space), channels, False, relu, stream, out)
    out, result = cuda_arrays.result(out, (n, t, *space), "float32", stream)
    if result.size:
        shares, share = _shares(n * t, channels)
        target = result if shares == 1 else scratch("partial", shares * result.size, stream)
        given = readable(a, target), readable(g, target), target, t, channels, places, share
        last, grid = relu and shares == 1, (n * t, shares)
        few = places <= cuda_sums.FEW
        kernel = cuda_sums.combine if few else cuda_rows.combine_rows(-(-places // WARP))
        launch(kernel, grid, stream, *given, last)
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
    stream = stream_of(stream, activations)
    a, w = flat(activations, FLOATS), flat(weights, FLOATS)
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
    stream = stream_of(stream, raw)
    maps, size = flat(raw, FLOATS), math.prod(shape[:-2])
    out, result = cuda_arrays.result(out, shape, "float32", stream)
    if result.size:
        peak = _peaks(maps, raw.shape, view, stream) if normalise else scratch("peak", 1, stream)
        grid, geometry = _picture(tuple(raw.shape[-2:]), view, cuda_pictures.BAND)
        launch(
            cuda_pictures.upsample, (size, *grid), stream,
            readable(maps, peak), peak, result, *geometry, normalise,
        )  # fmt: skip
    return out


def upsampled_max(raw: DeviceArray, view: View, *, stream: Any = None) -> float:
    """See :func:`onnxcam.kernels.reference.upsampled_max`; waits for the result."""
    shapes.upsampled(tuple(raw.shape), view)
    stream = stream_of(stream, raw)
    peak = _peaks(flat(raw, FLOATS), raw.shape, view, stream)
    return float(to_host(peak, stream)[0])


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
    stream = stream_of(stream, guided)
    g, maps = flat(guided, FLOATS), flat(raw, FLOATS)
    out, result = cuda_arrays.result(out, tuple(guided.shape), "float32", stream)
    if result.size:
        *outer, channels, _, _ = map(int, guided.shape)
        grid, geometry = _picture(tuple(raw.shape[-2:]), view, cuda_pictures.STRIP)
        launch(
            cuda_pictures.fuse, (math.prod(outer), *grid), stream,
            g, readable(maps, result), result, channels, *geometry,
        )  # fmt: skip
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
    stream = stream_of(stream, photo)
    pixels, table = flat(photo, ("uint8",)), flat(colours, ("uint8",))
    maps = flat(raw, FLOATS)
    out, result = cuda_arrays.result(out, tuple(photo.shape), "uint8", stream)
    if result.size:
        peak = _peaks(maps, raw.shape, view, stream)
        kernel, here, there, reach = cuda_paint.paint, pixels, result, THREADS
        words = [cuda_arrays.words(a) for a in (pixels, result) if view.size[1] % 4 == 0]
        if words and None not in words:
            kernel, (here, there), reach = cuda_paint.paint_words, words, 4 * THREADS
        grid, geometry = _picture(tuple(raw.shape), view, cuda_paint.STRIP, reach)
        launch(
            kernel, (1, *grid), stream,
            here, readable(maps, peak), peak, table, there, *geometry, float(alpha), float(shade),
        )  # fmt: skip
    return out


def sent(value: Any) -> Any:
    """Return an array of the host's on the device; anything else as it is."""
    return cuda.to_device(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


def to_host(array: DeviceArray, stream: Any = 0) -> NDArray[Any]:
    """Copy a result to the host, and wait for it."""
    return cuda_arrays.to_host(array, stream)


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
        found = to_host(function(*map(cuda.to_device, arrays), *map(sent, rest), **how))
        error = np.abs(found.astype(float) - expected).max() / scale
        worst[name] = max(worst.get(name, 0.0), float(error))

    rng = np.random.default_rng(0)
    view = View.whole((9, 11), (3, 4))
    photo = rng.integers(0, 256, (9, 11, 3)).astype(np.uint8)
    table = np.linspace(0, 255, 768).reshape(256, 3).astype(np.uint8)
    for dtype in FLOATS:
        # Positions: up to a block's threads, up to TILE, beyond that (the simulator is slow).
        for channels, side in ((5, 3), (70, 7), (5, 17), (1, 65))[: 3 if SIMULATED else 4]:
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
    if SIMULATED or places >= cuda_rows.LONG:
        launch(cuda_sums.pool, (count,), stream, g, weights, places)
    else:
        grid = (-(-count // (THREADS // WARP)),)
        launch(cuda_rows.pool_rows, grid, stream, g, weights, count, places)


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
    out, result = cuda_arrays.result(out, shape, "float32", stream)
    if result.size:
        n, t, *space = shape
        places = math.prod(space)
        stretches = -(-places // THREADS)
        shares, share = _shares(n * t * stretches, channels)
        target = result if shares == 1 else scratch("partial", shares * result.size, stream)
        launch(
            cuda_sums.weigh, (n * t * stretches, shares), stream,
            readable(a, target), readable(w, target), target, t, channels, places, share,
            pixels, stretches, relu and shares == 1,
        )  # fmt: skip
        _finish(target, result, shares, relu, stream)
    return out


@lru_cache(256)
def _shares(blocks: int, channels: int) -> tuple[int, int]:
    """Return into how many shares to split the channels, one for each block, and their size."""
    wanted = BLOCKS_A_PROCESSOR * cuda_arrays.processors()
    shares = min(max(wanted // max(blocks, 1), 1), max(channels // FEWEST_CHANNELS, 1))
    share = -(-channels // shares)
    return (-(-channels // share) if share else 1), share


def _finish(partial: Any, result: Any, shares: int, relu: bool, stream: Any) -> None:
    if shares > 1:
        grid = (-(-result.size // THREADS),)
        launch(cuda_sums.finish, grid, stream, partial, result, shares, result.size, relu)


def _peaks(maps: Any, shape: tuple[int, ...], view: View, stream: Any) -> Any:
    """Return the largest value of each map on its photograph."""
    count = max(math.prod(tuple(shape)[:-2]), 1)
    peak = scratch("peak", count, stream)
    _, geometry = _picture(tuple(shape[-2:]), view, cuda_pictures.BAND)
    launch(cuda_pictures.peaks, (count,), stream, readable(maps, peak), peak, *geometry)
    return peak


Geometry = tuple[tuple[int, ...], tuple[float, ...]]


@lru_cache(256)
def _picture(
    size: tuple[int, int], view: View, band: int, reach: int = cuda_pictures.COLUMNS * THREADS
) -> tuple[tuple[int, int], Geometry]:
    """Return the grid of bands of rows and stretches of columns, and what kernels take of a view.

    Of an empty map nothing is visible.
    """
    (height, width), (tall, wide) = map(int, size), view.size
    rows, columns = view.rows, view.columns
    seen = (rows.first, rows.last, columns.first, columns.last) if height * width else (0,) * 4
    places = rows.scale, rows.offset, columns.scale, columns.offset
    grid = -(-tall // band), -(-wide // reach)
    return grid, ((height, width, tall, wide, *map(int, seen)), tuple(map(float, places)))
