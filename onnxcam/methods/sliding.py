"""SESS: a map made of maps of parts of the image, enlarged; around another as ``sess@METHOD``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial, wraps
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import MethodError
from onnxcam.kernels.space import resized
from onnxcam.methods.base import Method, Runs, chunks, positive
from onnxcam.methods.registry import METHODS, WRAPPERS, register
from onnxcam.methods.wrappers import driven, heatmaps

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site, Weighted

_GROWTH = 2 / 7  # of one scale after the other, 64 of 224 pixels
_REACH, _DEVIATION = 5, 5.0  # of the last smoothing, in pixels
_COST = "1 for each window, 122 by default"
Window = tuple[slice, ...]


@register(
    "sess",
    "Tursun et al. 2022, section 3; around another as sess@layer-cam",
    cost=_COST,
    drives=True,
)
def sess(runs: Runs, scales: int = 12, skip: float = 0.0) -> NDArray[np.float64]:
    """The mean of maps, scaled to 0..1 and weighed by probability, of windows on enlarged images.

    Windows are as large as the image. The share ``skip`` of them that the target is least probable
    in is left out; a place's mean is over maps that are above 0 there, smoothed at the end.
    """
    return _slid(_with_share(METHODS["grad-cam"]), runs, scales, skip)


def _slid(method: Method, runs: Runs, scales: int = 12, skip: float = 0.0) -> NDArray[np.float64]:
    positive("sess", scales=scales)
    if not 0 <= skip < 1:
        raise MethodError(f"method 'sess': skip = {skip} must be at least 0 and below 1.")
    space = runs.image.shape[1:]
    sizes, windows, maps, shares = [], [], [], []
    for size, some, images in _parts(runs.image, int(scales), runs.batch):
        found = runs.given(method, images)
        shares.append(found.pop("share"))  # [B, T]
        maps.append(method.finished(found))  # [B, T, *s]
        windows += some
        sizes += [size] * len(some)
    if maps[0].ndim - 2 != len(space):
        raise MethodError(
            f"sess puts maps where they lie on the image, which has {len(space)} spatial axes, and "
            f"these have {maps[0].ndim - 2}; choose a layer whose places are the image's, or "
            "augmentation-smoothing in its place."
        )
    share = np.maximum(np.concatenate(shares), 0).astype(np.float64)
    share /= np.where(share.max(axis=0) > 0, share.max(axis=0), 1)
    order = np.argsort(share, axis=0, kind="stable")[int(len(share) * skip) :]
    targets = range(share.shape[1])
    total, count = np.zeros((len(targets), *space)), np.zeros((len(targets), *space))
    for n, part in enumerate(_rows(maps)):
        wanted = [t for t in targets if n in order[:, t]]
        weights = [share[n, t] if share[:, t].any() else 1.0 for t in wanted]
        for t, weight, heat in zip(wanted, weights, heatmaps(part[wanted], space), strict=True):
            whole = np.zeros((1, *sizes[n]), np.float32)
            whole[0][windows[n]] = heat * weight
            placed = resized(whole, space)[0]
            total[t] += np.maximum(placed, 0)
            count[t] += placed > 0
    return _smoothed(total / np.maximum(count, 1))


def _rows(parts: list[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    for part in parts:
        yield from part


def _parts(
    image: NDArray[Any], scales: int, batch: int
) -> Iterator[tuple[tuple[int, ...], list[Window], NDArray[Any]]]:
    """Yield the size of an enlarged image, windows on it, and what is in them ``[B, C, *S]``."""
    space = image.shape[1:]
    for n in range(scales):
        size = tuple(length + n * round(length * _GROWTH) for length in space)
        large = resized(image, size).astype(image.dtype) if n else image
        starts = [_starts(whole, length) for whole, length in zip(size, space, strict=True)]
        windows = [
            tuple(slice(a, a + length) for a, length in zip(corner, space, strict=True))
            for corner in product(*starts)
        ]
        for start, stop in chunks(len(windows), batch):
            some = windows[start:stop]
            yield size, some, np.stack([large[(slice(None), *window)] for window in some])


def _starts(whole: int, length: int) -> list[int]:
    """Return where windows start, side by side; the last one ends with the image."""
    return [min(start, whole - length) for start in range(0, whole, length)]


def _smoothed(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Blur maps ``[T, *S]``, which are mirrored at their edges."""
    taps = np.arange(-_REACH, _REACH + 1)
    kernel = np.exp(-np.square(taps / _DEVIATION) / 2)
    kernel /= kernel.sum()
    for axis in range(1, maps.ndim):
        width = [(_REACH, _REACH) if a == axis else (0, 0) for a in range(maps.ndim)]
        mirrored = np.pad(maps, width, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(mirrored, len(taps), axis=axis)
        maps = windows @ kernel
    return np.asarray(maps)


def _with_share(method: Method) -> Method:
    """Return a method that also writes how probable its target is."""
    write = method.write
    assert write is not None

    @wraps(write)
    def both(s: Site, **parameters: float) -> Mapping[str, Term | Weighted]:
        made = write(s, **parameters)
        parts = dict(made) if isinstance(made, Mapping) else {"map": made}
        return {**parts, "share": s.share}

    return replace(method, name=f"{method.name} and share", write=both, on_device=False)


def _around(method: Method) -> Method:
    return driven(method, partial(_slid, _with_share(method)), _COST)


WRAPPERS["sess"] = _around
