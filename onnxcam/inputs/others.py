"""A model's inputs besides the image."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import InputArrayError, nearest
from onnxcam.model.facts import TensorFacts
from onnxcam.surgeon.plan import Plan, of_images

_STATES = frozenset(("h", "c", "hx", "cx", "hidden", "state", "states", "memory", "carry", "cell"))


def check_others(
    given: Mapping[str, NDArray[Any]], plan: Plan, path: Path
) -> dict[str, NDArray[Any]]:
    """Return the inputs as the model takes them, with a batch axis.

    A single number fills an input. A recurrent state that is not given is zeros, with a warning;
    the scale and size of images, where they are not given, are those of each image, and not here.

    Raises:
        InputArrayError: one is missing or unknown, or has another shape or dtype.
    """
    takes = {t.name: t for t in plan.facts.inputs if t.name != plan.image.name}
    for name in given:
        if name not in takes:
            why = "is the image" if name == plan.image.name else "is none of its inputs"
            raise InputArrayError(f"{path}: input '{name}' {why}.{nearest(name, takes)}")
    takes = {n: t for n, t in takes.items() if n in given or not of_images(t)}
    absent = [t for name, t in takes.items() if name not in given]
    states = [t.name for t in absent if _is_state(t, plan)]
    missing = [str(t) for t in absent if t.name not in states]
    if missing:
        raise InputArrayError(
            f"{path}: besides the image '{plan.image.name}' it takes {', '.join(missing)}. Give "
            "them: --input NAME=FILE.npy|zeros|NUMBER, or explain(image, inputs={name: array})."
        )
    if states:
        warnings.warn(
            f"{path.name}: the recurrent state {', '.join(states)} is not given; zeros are taken.",
            stacklevel=2,
        )
    found = {}
    for name, facts in takes.items():
        array = np.asarray(given.get(name, 0))
        shape = facts.shape
        if array.ndim == 0 and shape:
            sizes = [d if isinstance(d, int) else 1 for d in shape]
            array = np.full(sizes, _as(array, facts, path))
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
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise InputArrayError(
                f"{path}: input '{name}' holds NaN; every score would be NaN too."
            )
        found[name] = array
    return found


def _as(number: NDArray[Any], facts: TensorFacts, path: Path) -> NDArray[Any]:
    """Return a single number in an input's dtype, refused where it is another one there."""
    with np.errstate(all="ignore"):
        cast = number.astype(facts.dtype)
    same = cast == number if cast.dtype.kind in "iub" else np.isfinite(cast) == np.isfinite(number)
    if not same:
        raise InputArrayError(f"{path}: input '{facts.name}': {number} is no {facts.dtype}.")
    return cast


def _number(text: str) -> float | None:
    try:
        return 0.0 if text == "zeros" else float(text)
    except ValueError:
        return None


def _is_state(facts: TensorFacts, plan: Plan) -> bool:
    """Whether an input is a recurrent state: by its name, and an output is like it."""
    words = re.findall(r"[a-z]+", facts.name.lower())
    like = any((t.shape, t.dtype) == (facts.shape, facts.dtype) for t in plan.facts.outputs)
    return like and facts.dtype.startswith("float") and bool(_STATES & set(words))


def read_others(given: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read inputs named as ``NAME=FILE.npy``, ``NAME=zeros`` or ``NAME=NUMBER``.

    Raises:
        InputArrayError: another form, or a file that is none of NumPy's.
    """
    found = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or not name or not file:
            raise InputArrayError(f"input '{text}': write it as NAME=FILE.npy|zeros|NUMBER.")
        number = _number(file)
        if number is not None:
            found[name] = np.array(number)
            continue
        try:
            array = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or "it is no .npy file of NumPy"
            raise InputArrayError(f"input '{name}': {file} cannot be read ({reason}).") from error
        if not isinstance(array, np.ndarray):
            raise InputArrayError(f"input '{name}': {file} holds several arrays; give a .npy file.")
        found[name] = array
    return found
