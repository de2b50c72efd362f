"""What two models are fed besides the image: the same numbers in inputs of the same name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import CompareError, nearest
from onnxcam.inputs.others import OtherInput, Others, read_others
from onnxcam.model.facts import TensorFacts

Array = NDArray[Any]


def inputs_of(
    takes: Others, given: Sequence[str], reference: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Return what a model is fed besides the image, with a batch axis of 1.

    Args:
        takes: what it takes.
        given: ``NAME=FILE.npy|zeros|NUMBER|TEXT`` of both models; names that it does not have are
            passed over.
        reference: what the other model is fed, whose names it may share.

    Raises:
        InputArrayError: one is missing or does not fit; see
            :meth:`onnxcam.inputs.others.Others.check`.
    """
    shared = {n: a for n, a in (reference or {}).items() if n in takes.names}
    mine = [g for g in given if (name := name_of(g)) in takes.names and name not in shared]
    fed: dict[str, OtherInput] = {**read_others(mine, takes.texts)}
    for name, array in shared.items():
        fed[name] = _as(array, takes.names[name])
    return takes.check(fed)


def name_of(given: str) -> str:
    """Return the input that ``NAME=VALUE`` is of.

    Raises:
        InputArrayError: it has another form.
    """
    name, equals, value = given.partition("=")
    if not (name and equals and value):
        read_others([given])
    return name


def check_names(
    given: Sequence[str], names: Collection[str], recorded: Collection[str] = ()
) -> None:
    """Refuse inputs that no model has, or that a recorded run settled.

    Args:
        given: as :func:`inputs_of` takes it.
        names: the inputs besides the images of all models.
        recorded: those that were recorded.

    Raises:
        CompareError: there are such.
        InputArrayError: another form.
    """
    for name in map(name_of, given):
        if name in recorded:
            raise CompareError(
                f"--input {name}=...: belongs to the run that was recorded, whose numbers the "
                "candidate is fed. Leave it out."
            )
        if name not in names:
            raise CompareError(
                f"--input {name}=...: no model has such an input besides the image."
                f"{nearest(name, names)}"
            )


def _as(array: Array, takes: TensorFacts) -> Array:
    """Return the reference's numbers in the type that the candidate takes, where it holds them."""
    with np.errstate(all="ignore"):
        cast = array.astype(takes.dtype)
    both_real = array.dtype.kind == cast.dtype.kind == "f"
    return cast if both_real or np.array_equal(cast, array) else array
