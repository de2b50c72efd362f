"""A model's inputs besides the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import InputArrayError, nearest
from onnxcam.surgeon.plan import Plan


def check_others(
    given: Mapping[str, NDArray[Any]], plan: Plan, path: Path
) -> dict[str, NDArray[Any]]:
    """Return the inputs as the model takes them, with a batch axis.

    Raises:
        InputArrayError: one is missing or unknown, or has another shape or dtype.
    """
    takes = {t.name: t for t in plan.facts.inputs if t.name != plan.image.name}
    for name in given:
        if name not in takes:
            why = "is the image" if name == plan.image.name else "is none of its inputs"
            raise InputArrayError(f"{path}: input '{name}' {why}.{nearest(name, takes)}")
    missing = [str(t) for name, t in takes.items() if name not in given]
    if missing:
        raise InputArrayError(
            f"{path}: besides the image '{plan.image.name}' it takes {', '.join(missing)}. Give "
            "them: --input NAME=FILE.npy, or explain(image, inputs={name: array})."
        )
    found = {}
    for name, facts in takes.items():
        array = np.asarray(given[name])
        shape = facts.shape
        if shape is not None and array.ndim == len(shape) - 1:
            array = array[None]
        fits = shape is None or (
            array.ndim == len(shape)
            and all(
                not isinstance(d, int) or d == n for d, n in zip(shape, array.shape, strict=True)
            )
        )
        if not fits:
            raise InputArrayError(
                f"{path}: input '{name}' of shape {list(np.shape(given[name]))}: it takes {facts}."
            )
        if str(array.dtype) != facts.dtype:
            raise InputArrayError(
                f"{path}: input '{name}' of dtype {array.dtype}: it takes {facts.dtype}. Convert "
                f"it with .astype('{facts.dtype}')."
            )
        found[name] = array
    return found


def read_others(given: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read inputs named as ``NAME=FILE.npy``.

    Raises:
        InputArrayError: another form, or a file that is none of NumPy's.
    """
    found = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or not name or not file:
            raise InputArrayError(f"input '{text}': write it as NAME=FILE.npy.")
        try:
            array = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or "it is no .npy file of NumPy"
            raise InputArrayError(f"input '{name}': {file} cannot be read ({reason}).") from error
        if not isinstance(array, np.ndarray):
            raise InputArrayError(f"input '{name}': {file} holds several arrays; give a .npy file.")
        found[name] = array
    return found
