"""Targets that are weighted sums of a tensor's numbers: differences, slices, regions, similarity.

The weights are made on the host, of the tensor's values on the image in a run of their own where
they depend on them; the gradient is that of the weighted sum. What the values chose, the best of
several classes, the largest number, the pixels of a region, is taken as fixed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import TargetError

Array = NDArray[Any]
# Tensors that are found, see onnxcam.surgeon.words.
SCORES, DENSE, EMBEDDING = "", "onnxcam:dense", "onnxcam:embedding"


class Weights(NamedTuple):
    """What is explained of one image: weights of a tensor's numbers, and the number it is.

    ``said`` is what the record calls it, where the image decides: the class that was found.
    ``detected`` are the image's detections (:class:`onnxcam.targets.boxes.Detected`).
    """

    weights: Array
    number: float
    said: str = ""
    detected: Any = None


class WeightedTarget(Protocol):
    """A target of this kind; equal ones share a row of a run, each image weighing its own.

    One that needs to know where the photograph lies in the tensor has a method ``located`` too,
    which is given the image's geometry and returns the target to weigh (``targets/pixels.py``).
    """

    @property
    def tensor(self) -> str:
        """The tensor's name, or one that says what is to be found."""

    @property
    def linear(self) -> bool:
        """Whether the number is the weighted sum, whatever the image."""

    def weigh(self, values: Array) -> Weights:
        """Return the weights for one image's part of the tensor.

        Raises:
            TargetError: they cannot be told.
        """


@dataclass(frozen=True)
class _Written:
    """A target as the user wrote it."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Difference(_Written):
    """A class's score less another's: why this one and not that one."""

    more: int
    less: int
    tensor: str = SCORES
    linear: bool = True

    def weigh(self, values: Array) -> Weights:
        """Return 1 for one class and -1 for the other."""
        flat = values.reshape(-1)
        weights = np.zeros(flat.shape)
        weights[self.more] += 1
        weights[self.less] -= 1
        return Weights(weights.reshape(values.shape), float(flat[self.more] - flat[self.less]))


@dataclass(frozen=True)
class Best(_Written):
    """The score of the best of several classes."""

    classes: tuple[int, ...]
    tensor: str = SCORES
    linear: bool = True

    def weigh(self, values: Array) -> Weights:
        """Return 1 for the best."""
        flat = values.reshape(-1)
        best = max(self.classes, key=lambda c: float(flat[c]))
        weights = np.zeros(flat.shape)
        weights[best] = 1
        return Weights(weights.reshape(values.shape), float(flat[best]))


@dataclass(frozen=True)
class Slices(_Written):
    """Sum, mean or maximum of a part of a tensor, ``NAME[:,3:5,16]:mean``."""

    tensor: str
    index: tuple[int | slice, ...]
    reduce: str
    linear: bool = True

    def __hash__(self) -> int:  # slices have no hash before Python 3.12
        return hash(self.text)

    def weigh(self, values: Array) -> Weights:
        """Return 1, or 1 over their count, for the numbers in the part, or 1 for the largest."""
        if len(self.index) != values.ndim:
            raise TargetError(
                f"target '{self.text}': an image's part of '{self.tensor}' has the shape "
                f"{list(values.shape)}; give an index or a slice for each axis, ':' for all."
            )
        chosen = np.zeros(values.shape)
        try:
            chosen[self.index] = 1
        except IndexError as error:
            raise TargetError(
                f"target '{self.text}' is out of range: '{self.tensor}' has shape "
                f"{list(values.shape)}."
            ) from error
        count = chosen.sum()
        if not count:
            raise TargetError(f"target '{self.text}' holds no number of {list(values.shape)}.")
        if self.reduce == "max":
            largest = np.where(chosen > 0, values, -np.inf).argmax()
            chosen = np.zeros(values.shape)
            chosen.flat[largest] = 1
        elif self.reduce == "mean":
            chosen /= count
        return Weights(chosen, float((chosen * values).sum()))


@dataclass(frozen=True)
class Region(_Written):
    """The sum of a class's scores over the pixels that the model gives to that class.

    Vinogradova et al. 2020 (Seg-Grad-CAM), eq. 2, with the predicted pixels.
    """

    index: int
    tensor: str = DENSE
    linear: bool = True

    def weigh(self, values: Array) -> Weights:
        """Return 1 for the class's scores in its pixels."""
        if not 0 <= self.index < len(values):
            raise TargetError(
                f"target '{self.text}' is out of range: the classes of pixels count from 0 to "
                f"{len(values) - 1}."
            )
        predicted = values.argmax(axis=0) == self.index if len(values) > 1 else values[0] > 0
        if not predicted.any():
            present = sorted(map(int, np.unique(values.argmax(axis=0))))
            raise TargetError(
                f"target '{self.text}': no pixel of the image is given to class {self.index}. "
                f"Classes with pixels: {', '.join(map(str, present))}."
            )
        weights = np.zeros(values.shape)
        weights[self.index] = predicted
        return Weights(weights, float(values[self.index][predicted].sum()))


@dataclass(frozen=True, eq=False)
class Similarity:
    """The cosine similarity of the image's embedding with a vector.

    Attributes:
        vector: of the embedding's length, of any length greater than 0.
        text: what it is called in records.
    """

    vector: Array
    text: str = "similarity"
    tensor: str = EMBEDDING
    linear: bool = False

    def __str__(self) -> str:
        return self.text

    def weigh(self, values: Array) -> Weights:
        """Return the similarity's derivative by the embedding."""
        e, r = (
            values.astype(np.float64).reshape(-1),
            np.asarray(self.vector, np.float64).reshape(-1),
        )
        if e.shape != r.shape:
            raise TargetError(
                f"target '{self.text}': a vector of {r.size} numbers for embeddings of {e.size}."
            )
        lengths = float(np.linalg.norm(e) * np.linalg.norm(r))
        if not lengths:
            raise TargetError(f"target '{self.text}': an embedding of length 0 has no direction.")
        number = float(e @ r) / lengths
        weights = r / lengths - e * number / float(e @ e)
        return Weights(weights.reshape(values.shape), number)


_SLICES = re.compile(r"(?P<name>.+)\[(?P<index>[-\d\s:,]*:[-\d\s:,]*)\](:(?P<reduce>\w+))?")
_POINT = re.compile(r"(?P<name>.+)\[(?P<index>[\d\s,]+)\]:(?P<reduce>\w+)")
_REDUCE = ("sum", "mean", "max")


def weighted(target: object, classes: Callable[[str], int]) -> WeightedTarget | None:
    """Return the weighted target that a text stands for, ``None`` where it is none.

    Args:
        target: what the user wrote.
        classes: returns a class's index by its index or label, or raises a :class:`TargetError`.

    Raises:
        TargetError: it is one, but a part of it is wrong.
    """
    if not isinstance(target, str):
        return target if hasattr(target, "weigh") else None  # type: ignore[return-value]
    text = target.strip()
    found = _SLICES.fullmatch(text) or _POINT.fullmatch(text)
    if found is not None:
        return _slices(text, found["name"], found["index"], found["reduce"] or "sum")
    if text.lower().startswith("best of "):
        names = [n.strip() for n in text[8:].split(",") if n.strip()]
        return Best(text, tuple(classes(n) for n in names)) if names else None
    more, minus, less = text.partition(" - ")
    return Difference(text, classes(more), classes(less)) if minus else None


def _slices(text: str, name: str, written: str, reduce: str) -> Slices:
    if reduce not in _REDUCE:
        raise TargetError(f"target '{text}': '{reduce}' is not one of {', '.join(_REDUCE)}.")
    index: list[int | slice] = []
    for part in written.split(","):
        numbers = [n.strip() for n in part.split(":")]
        if len(numbers) > 3 or not all(re.fullmatch(r"-?\d*", n) for n in numbers):
            raise TargetError(f"target '{text}': '{part}' is neither an index nor a slice.")
        ends = [int(n) if n else None for n in numbers]
        if len(ends) == 1:
            if ends[0] is None:
                raise TargetError(f"target '{text}': an index is missing.")
            index.append(ends[0])
        else:
            index.append(slice(*ends))
    return Slices(text, name, tuple(index), reduce)


def call(index: int, labels: Sequence[str] | None) -> str:
    """Return a class's label, or its index where it has none."""
    return labels[index] if labels and index < len(labels) and labels[index] else str(index)


class Stacked(NamedTuple):
    """Weights ``[T, N, *P]``, numbers ``[T, N]``, what they are called, and detections."""

    weights: Array
    numbers: NDArray[np.float64]
    said: list[list[str]]
    detected: list[list[Any]]


def stacked(
    targets: Sequence[WeightedTarget],
    values: Array,
    wanted: Sequence[Sequence[Any]],
    geometries: Sequence[Any],
) -> Stacked:
    """Weigh targets for values ``[N, *P]``.

    Args:
        targets: what is weighed.
        values: of the images, and of those that only fill up the run.
        wanted: what each image wants; it has weights of 0 for the others.
        geometries: where each image lies in the input.
    """
    weights = np.zeros((len(targets), *values.shape), values.dtype)
    numbers = np.zeros((len(targets), len(values)))
    said = [[str(t)] * len(values) for t in targets]
    detected: list[list[Any]] = [[None] * len(values) for _ in targets]
    seen: dict[int, Any] = {}  # the detections of an image, which its boxes share
    for t, target in enumerate(targets):
        for n, (mine, geometry) in enumerate(zip(wanted, geometries, strict=True)):
            if target in mine:
                own = mine[mine.index(target)]  # equal, though it may know more of this image
                located = getattr(own, "located", None)
                one: Any = own if located is None else located(geometry)
                if hasattr(one, "look"):
                    seen[n] = seen[n] if n in seen else one.look(values[n])
                    one = replace(one, every=seen[n])
                found = one.weigh(values[n])
                weights[t, n], numbers[t, n] = found.weights, found.number
                said[t][n] = getattr(found, "said", "") or str(target)
                detected[t][n] = getattr(found, "detected", None)
    return Stacked(weights, numbers, said, detected)
