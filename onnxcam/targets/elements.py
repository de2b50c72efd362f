"""Single elements of any tensor as targets: ``NAME[5,3]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import TargetError

_FORM = re.compile(r"(?P<name>.+)\[(?P<index>\s*-?\d+(\s*,\s*-?\d+)*\s*)\]")


@dataclass(frozen=True)
class ElementTarget:
    """One element of each image's part of a tensor; the batch axis is left out."""

    tensor: str
    index: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.tensor}[{','.join(map(str, self.index))}]"


def element(target: object) -> ElementTarget | None:
    """Return the element that a target names, ``None`` where it names something else."""
    found = _FORM.fullmatch(target.strip()) if isinstance(target, str) else None
    if found is None:
        return None
    return ElementTarget(found["name"], tuple(int(i) for i in found["index"].split(",")))


def indices(
    targets: Sequence[ElementTarget], shape: Sequence[int | str | None]
) -> NDArray[np.int64]:
    """Return the indices as the instrumented graph takes them, ``[T, 1, rank]``.

    Args:
        targets: elements of one tensor.
        shape: the shape of an image's part of it; only the run may know some lengths.

    Raises:
        TargetError: an index has another rank, or is out of range.
    """
    for target in targets:
        if len(target.index) != len(shape):
            raise TargetError(
                f"target '{target}': an image's part of '{target.tensor}' has {len(shape)} "
                f"{'axis' if len(shape) == 1 else 'axes'}, {list(shape)}; give an index for each."
            )
        for axis, (i, length) in enumerate(zip(target.index, shape, strict=True)):
            if i < 0 or (isinstance(length, int) and i >= length):
                last = f" to {length - 1}" if isinstance(length, int) else ""
                raise TargetError(
                    f"target '{target}' is out of range: axis {axis} counts from 0{last}."
                )
    return np.array([[t.index] for t in targets], np.int64)
