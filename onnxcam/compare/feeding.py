"""What each side is fed: the reference's preprocessing, adapted to how the candidate is built.

1. The same tensor, its axes in the candidate's order, in its type.
2. Where the candidate takes another size, the photograph prepared in that size in the same way.
3. Where an input is quantized, integers stand for the numbers that the other side is fed.
4. Where its integers are not explained by a ``DequantizeLinear``, as its own card says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxcam.compare.facts import About, Quantized
from onnxcam.errors import CompareError
from onnxcam.imaging.preprocess import Preprocess
from onnxcam.inputs.images import Inputs, Item
from onnxcam.surgeon.plan import ImageInput

Array = NDArray[Any]


class Fed(NamedTuple):
    """An image as one side takes it, ``[1, ...]``, and where it lies there."""

    tensor: Array
    item: Item


class Feeding:
    """Prepares one image for both sides.

    Attributes:
        said: how the candidate's images are prepared, for the reader.
    """

    def __init__(
        self,
        reference: About,
        candidate: ImageInput,
        ends: Quantized | None,
        own: Preprocess | None = None,
    ) -> None:
        """See how the candidate's input goes with the reference's.

        Args:
            reference: the reference.
            candidate: the candidate's image input.
            ends: how its integers are read.
            own: its own preprocessing, where that is to be used.

        Raises:
            CompareError: what one takes cannot be made into what the other takes.
        """
        self._reference, self._takes, self._ends = reference, candidate, ends
        self._inputs = Inputs(reference.image, Path(reference.file))
        first = reference.image
        if first.axes != candidate.axes or first.channels != candidate.channels:
            raise CompareError(
                f"the reference takes {_kind(first)}, the candidate {_kind(candidate)}: nothing "
                "can be fed to both. Compare models that take the same."
            )
        unsaid = [
            (whose, image)
            for whose, image, read in (
                ("reference", first, reference.ends),
                ("candidate", candidate, ends),
            )
            if np.dtype(image.dtype).kind in "ui" and read is None
        ]
        if unsaid and own is None and candidate.dtype != first.dtype:
            whose, image = unsaid[-1]
            raise CompareError(
                f"the {whose} takes {image.dtype} in '{image.name}', and nothing says which "
                "numbers they stand for. --candidate-preprocess NAME|FILE says how the "
                "candidate's images are prepared."
            )
        self._own_way = own is not None
        self._sized = None if own is None else Inputs(candidate, Path("candidate"))
        self._preprocess = own if own is not None else self._resized()
        self.said = self._told()

    def _resized(self) -> Preprocess | None:
        """Return how photographs are prepared in the candidate's size, where it is another."""
        how = self._reference.preprocess
        if how is None or how.size is None:
            sizes = self._reference.image.space, self._takes.space
            if any(a and b and a != b for a, b in zip(*sizes, strict=True)):
                raise CompareError(
                    f"the reference takes {_kind(self._reference.image)} of {list(sizes[0])}, the "
                    f"candidate of {list(sizes[1])}, and only photographs can be prepared in both "
                    "sizes. Compare models that take the same size."
                )
            return None
        own = (self._takes.height or how.size[0], self._takes.width or how.size[1])
        if own == how.size:
            return None
        shorter = how.shorter and max(1, round(how.shorter * min(own) / min(how.size)))
        self._sized = Inputs(
            replace(self._reference.image, height=own[0], width=own[1], batch=None),
            Path("candidate"),
        )
        return replace(how, size=own, shorter=shorter)

    def _told(self) -> str:
        if self._own_way:
            return "prepared in its own way, as asked"
        first, takes = self._reference.image, self._takes
        parts = []
        if self._preprocess is not None and self._preprocess.size is not None:
            parts.append("in its size, {}x{}".format(*self._preprocess.size))
        if takes.layout != first.layout:
            parts.append(f"axes turned from {first.layout} to {takes.layout}")
        if self._ends is not None:
            parts.append(f"quantized to {takes.dtype}, scale {self._ends.scale:.4g}")
        elif takes.dtype != first.dtype:
            parts.append(f"as {takes.dtype}")
        return "prepared as the reference's" + (f", {', '.join(parts)}" if parts else "")

    def prepare(self, image: Path) -> tuple[Fed, Fed]:
        """Return an image as each side takes it.

        Raises:
            ImageError, InputArrayError, PreprocessError: the image cannot be read or does not fit.
        """
        first, item = self._inputs.prepare(image, self._reference.preprocess)
        if self._sized is None or item.photo is None:
            return _fed(first, item), _fed(self.adapted(first), item)
        second, other = self._sized.prepare(item.photo, self._preprocess)
        return _fed(first, item), _fed(second if self._own_way else self.adapted(second), other)

    def adapted(self, tensor: Array) -> Array:
        """Return what the reference takes, ``[N, ...]``, in the candidate's layout and type."""
        first, takes = self._reference.image, self._takes
        if first.layout != takes.layout:
            sized = self._preprocess.size if self._preprocess is not None else None
            own = first if sized is None else replace(first, height=sized[0], width=sized[1])
            tensor = takes.as_taken(own.channels_first(tensor))
        if takes.dtype == first.dtype and self._ends == self._reference.ends:
            return np.ascontiguousarray(tensor)
        if self._reference.ends is not None:
            tensor = self._reference.ends.dequantized(tensor)
        if self._ends is not None:
            return np.ascontiguousarray(self._ends.quantized(tensor, takes.dtype))
        return np.ascontiguousarray(tensor, takes.dtype)


def _fed(tensor: Array, item: Item) -> Fed:
    """Leave out the photograph, which is large, and which nothing that waits to be run needs."""
    return Fed(tensor, item._replace(photo=None, given=None))


def look_like_noise(tensors: Sequence[Array], image: ImageInput) -> int:
    """Return how many images are noise: neighbouring pixels hardly correlate.

    Of photographs the correlation is about 0.9 and above, of independent random numbers 0.
    """
    count = 0
    for tensor in tensors:
        rows = np.asarray(image.channels_first(tensor)[0], np.float64)
        if rows.ndim != 3 or min(rows.shape[1:]) < 8:
            continue
        a, b = rows[..., 1:] - rows.mean(), rows[..., :-1] - rows.mean()
        size = np.sqrt((a * a).sum() * (b * b).sum())
        count += bool(size > 0 and (a * b).sum() / size < _NEIGHBOURS)
    return count


_NEIGHBOURS = 0.3


def _kind(image: ImageInput) -> str:
    return f"{image.kind}s of {image.channels} channel(s)"
