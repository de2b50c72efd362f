"""What a user writes of layers: one, several, a sweep, or several whose maps become one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import LayerError
from onnxcam.kernels.space import upsample
from onnxcam.kernels.view import Axis
from onnxcam.model.facts import TensorFacts
from onnxcam.notes import Note
from onnxcam.surgeon.words import STAGES, SWEEP

Map = NDArray[np.float32]
_HOW = ("mean", "max", "product")
SCALE = "scale"


@dataclass(frozen=True)
class Group:
    """The layers behind one map: one, or several and how their maps become one.

    ``how`` is :data:`SCALE` where the layers are those that a detector's head reads, one a scale:
    the map is that of the last one that a detection depends on.
    """

    places: tuple[int, ...]
    how: str = ""

    def named(self, names: Sequence[str]) -> str:
        """Return the layers' names, as a user writes them."""
        joined = ",".join(names)
        return f"{self.how}:{joined}" if self.how else joined

    def read(self, notes: Sequence[Note]) -> int:
        """Return which of the layers a detection was made of: the last that it depends on."""
        return max((n for n, note in enumerate(notes) if note != "zero"), default=0)

    def joined(
        self, maps: Sequence[Map], notes: Sequence[Note], size: tuple[int, ...]
    ) -> tuple[Map, Note]:
        """Return the map of the layers, and what is to be said of it.

        Of several layers, each map is rectified, scaled to 0..1 and resized to the input, then
        they are averaged: what pytorch-grad-cam does with several target layers
        (``BaseCAM.aggregate_multi_layers``); or the largest is taken, or their product (its
        ``RefineCAM``). A map that says nothing
        counts as zero, so that noise is not scaled up.

        Args:
            maps: signed, ``[*s]`` each.
            notes: what is to be said of each.
            size: the input's spatial lengths.

        Returns:
            The one map as it is, of several ``[*size]`` float32.
        """
        if not self.how:
            return maps[0], notes[0]
        if maps[0].ndim != len(size):  # spectra, which do not lie on their signal
            size = max((m.shape for m in maps), key=math.prod)
        scaled = np.zeros((len(maps), *size), np.float32)
        for n, (signed, note) in enumerate(zip(maps, notes, strict=True)):
            if not note:
                scaled[n] = _scaled(signed, size)
        if self.how == "product":
            axes = tuple(range(1, scaled.ndim))
            scaled -= scaled.min(axis=axes, keepdims=True)
            scaled /= np.maximum(scaled.max(axis=axes, keepdims=True), 1e-7)
            whole = np.asarray(scaled.prod(axis=0), np.float32)
        else:
            whole = scaled.mean(axis=0) if self.how == "mean" else scaled.max(axis=0)
        if whole.any():
            return whole, ""
        return whole, notes[0] if len(set(notes)) == 1 else "zero"


@dataclass(frozen=True)
class Layers:
    """Layers as they are wanted.

    Attributes:
        wanted: each layer by itself, see :class:`onnxcam.surgeon.request.Request`.
        written: the groups of these, as they were written.
    """

    wanted: tuple[str, ...]
    written: tuple[Group, ...]

    def groups(self, found: int, *, scales: bool = False) -> tuple[Group, ...]:
        """Return what there is a map of, where ``found`` layers were found.

        ``scales`` says that those found by themselves are what a detector's head reads.
        """
        if scales and found > 1 and self.wanted == ("auto",):
            return (Group(tuple(range(found)), SCALE),)
        if self.wanted == (SWEEP,) or not found:
            return tuple(Group((n,)) for n in range(max(found, 1)))
        return self.written

    def several(self, found: int) -> bool:
        """Whether there is a map of more than the first layer."""
        return any(g.places != (0,) for g in self.groups(found))


class Joining(Protocol):
    """What is asked of a method."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def joins(self) -> str:
        """How its maps of all layers become one; ``""``: they do not."""


M = TypeVar("M", bound=Joining)


def grouped(
    layers: Layers, methods: Sequence[M], found: int, *, scales: bool = False
) -> list[tuple[Group, M]]:
    """Return what there is a map of: by layers, then by methods; those that join layers last.

    Args:
        layers: as they are wanted.
        methods: all that explain.
        found: how many layers were found.
        scales: see :meth:`Layers.groups`.

    Raises:
        LayerError: a method joins layers, and there is one only.
    """
    groups = layers.groups(found, scales=scales)
    pairs = [(g, m) for g in groups for m in methods if not m.joins]
    for method in methods:
        if method.joins and found < 2:
            raise LayerError(
                f"method '{method.name}' joins the maps of several layers, and there is one: name "
                f"several, as --layer -2 --layer 0, or take --layer {SWEEP}; grad-cam++ explains "
                "one."
            )
        if method.joins:
            pairs.append((Group(tuple(range(found)), method.joins), method))
    return pairs


def read_layers(layer: str | int | Sequence[str | int], joins: bool = False) -> Layers:
    """Read ``"auto"``, a name, a number, ``"mean:a,b"``, ``"max:a,b"``, ``"sweep"``, or a list.

    ``"product:a,b"`` is a third way to join several.

    Args:
        layer: what was written.
        joins: whether a method joins the maps of several layers: ``"auto"`` then is the last layer
            of each size for it, and the default layer for others.

    Raises:
        LayerError: there is none, or a sweep has company.
    """
    listed = [layer] if isinstance(layer, (str, int)) else list(layer)
    if not listed:
        raise LayerError("no layer given: the list is empty.")
    if joins and listed == ["auto"]:
        return Layers((STAGES,), (Group((0,)),))
    wanted: list[str] = []
    groups = []
    for text in map(str, listed):
        how, _, rest = text.partition(":")
        names = [n.strip() for n in rest.split(",") if n.strip()]
        several = how in _HOW and len(names) > 1
        mine = names if several else [text]
        for name in mine:
            if name not in wanted:
                wanted.append(name)
        groups.append(Group(tuple(wanted.index(n) for n in mine), how if several else ""))
    if SWEEP in wanted and len(wanted) > 1:
        raise LayerError(f"layer '{SWEEP}' stands alone: it is every layer from deep to shallow.")
    return Layers(tuple(wanted), tuple(groups))


def channels_of(layers: Sequence[TensorFacts]) -> int | None:
    """Return how many channels one layer has, if it is one and that is known."""
    shape = layers[0].shape if len(layers) == 1 else None
    length = shape[1] if shape is not None and len(shape) > 1 else None
    return length if isinstance(length, int) else None


def _scaled(signed: Map, size: tuple[int, ...]) -> Map:
    raw = np.maximum(signed, 0)
    raw = raw - raw.min()
    scaled = raw / max(float(raw.max()), np.finfo(np.float32).tiny)
    places = [Axis.whole(n, m) for n, m in zip(size, scaled.shape, strict=True)]
    return upsample(np.ascontiguousarray(scaled), places)
