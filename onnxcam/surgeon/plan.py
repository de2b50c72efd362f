"""What the surgeon found and chose, as plain data that can be stored.

Nothing here needs ``onnx``: a stored plan is read back without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxcam.model.facts import ModelFacts, TensorFacts
from onnxcam.surgeon.lengths import Check

TARGETS = "onnxcam:targets"
RANKS = "onnxcam:ranks"
SCORES = "onnxcam:scores"
CLASSES = "onnxcam:classes"
ELEMENTS = "onnxcam:elements"
VALUES = "onnxcam:values"
WEIGHTS = "onnxcam:weights"


# Inputs [N, 2] that are fed from the images: of Paddle's detectors, and of RT-DETR and D-FINE.
_OF_IMAGES = {"scale_factor": "scale", "im_shape": "HW", "orig_target_sizes": "WH"}


def of_images(facts: TensorFacts) -> str:
    """Return what an input tells of an image.

    Returns:
        ``"scale"``, how many input pixels one of the photograph became, along rows and columns;
        ``"HW"`` or ``"WH"``, how large the image is; ``""`` for other inputs.
    """
    shape = facts.shape or ()
    return _OF_IMAGES.get(facts.name, "") if len(shape) == 2 and shape[1] in (2, None) else ""


def part_name(name: str, place: int) -> str:
    """Return what a part is called at one of the layers, counted from 0."""
    return f"{name}@{place}" if place else name


@dataclass(frozen=True)
class ImageInput:
    """The input that takes images, signals or volumes; ``None`` marks dynamic lengths.

    Attributes:
        name: the tensor's name.
        dtype: NumPy's name of its dtype.
        layout: a letter an axis: ``N``, ``C``, and of space ``D``, ``H``, ``W``. Images are
            ``NCHW``, ``NHWC``, or without channels ``NHW``; signals ``NCW``, ``NWC`` or ``NW``;
            volumes ``NCDHW`` or ``NDHWC``; ``NF`` has all numbers of an image in one row.
        channels: their number, 1 where the layout has none.
        height: of images and volumes.
        width: of all; the length of signals.
        batch: how many images a run takes, where that is fixed.
        depth: the number of a volume's slices.
    """

    name: str
    dtype: str
    layout: str
    channels: int
    height: int | None
    width: int | None
    batch: int | None
    depth: int | None = None

    @property
    def axes(self) -> str:
        """The letters of the spatial axes, in order: ``HW``, ``W`` or ``DHW``."""
        return "HW" if self.layout == "NF" else "".join(a for a in self.layout if a in "DHW")

    @property
    def kind(self) -> str:
        """What it holds: ``image``, ``signal`` or ``volume``."""
        return {"HW": "image", "W": "signal", "DHW": "volume"}[self.axes]

    @property
    def space(self) -> tuple[int | None, ...]:
        """The lengths of the spatial axes."""
        sizes = {"D": self.depth, "H": self.height, "W": self.width}
        return tuple(sizes[a] for a in self.axes)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """One image's shape as the model takes it."""
        if self.layout == "NF":
            assert self.height is not None and self.width is not None
            return (self.channels * self.height * self.width,)
        sizes = dict(zip(self.axes, self.space, strict=True))
        return tuple(self.channels if a == "C" else sizes[a] for a in self.layout[1:])

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether an image of this shape can be fed as it is."""
        return len(shape) == len(self.shape) and all(
            own in (None, n) for own, n in zip(self.shape, shape, strict=True)
        )

    def channels_first(self, array: Any, leading: int = 1) -> Any:
        """Return an array ``[..., *shape]`` with ``leading`` axes as ``[..., C, *S]``."""
        if self.layout == "NF":
            return array.reshape(*array.shape[:leading], self.channels, *self.space)
        if "C" not in self.layout:
            return array.reshape(*array.shape[:leading], 1, *array.shape[leading:])
        if self.layout.endswith("C"):
            return np.moveaxis(array, -1, leading)
        return array

    def as_taken(self, images: Any) -> Any:
        """Return images ``[N, C, *S]`` as the model takes them."""
        if self.layout == "NF":
            return images.reshape(len(images), -1)
        if "C" not in self.layout:
            return images[:, 0]
        return np.moveaxis(images, 1, -1) if self.layout.endswith("C") else images

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ImageInput:
        """Rebuild from ``dataclasses.asdict``'s data."""
        return ImageInput(**data)


@dataclass(frozen=True)
class DetectorFacts:
    """How a detector's numbers are read, ``[N, A, 4 + S]``: a box, then scores.

    Attributes:
        objectness: whether the first score says that there is anything, and the others what.
        final: whether there is one score, and after it the class.
        classes: how many classes there are, ``None``: all numbers that are left.
        squashed: what follows the scores in the model: ``"Sigmoid"``, ``"Softmax"`` or nothing.
        corners: whether boxes are corners; ``None``: what the run gives decides.
        threshold: of the model's own NonMaxSuppression, below which scores are left out.
        overlap: of that, above which one of two boxes is.
        most: boxes of a class that it leaves.
        offsets: whether boxes are known to be offsets from cells.
        relative: whether boxes are in parts of the image; ``None``: what the run gives decides.
        first: the number of the first class, where the model gives classes by number.
        guess: what of this is a guess, for the reader; ``""`` for nothing.
        given: whether the score as the model gives it stands after the class.
    """

    objectness: bool = False
    final: bool = False
    classes: int | None = None
    squashed: str = ""
    corners: bool | None = None
    threshold: float | None = None
    overlap: float | None = None
    most: float | None = None
    offsets: bool = False
    relative: bool | None = None
    first: int = 0
    guess: str = ""
    given: bool = False


@dataclass(frozen=True)
class PartFacts:
    """What one part of an instrumented model gives.

    Attributes:
        outputs: the part's values and the names of the outputs that give them.
        images_first: of these values, those with axes ``[N, T, ...]``; the others are
            ``[T, N, ...]``.
        weighted: sums that are left to a kernel, by name, and whether they are rectified: of
            ``NAME:weights``, ``[N, T, K]`` or ``[N, T, K, *S]``, and ``NAME:activations``.
        sums: values that are weighted sums of the layer's maps; others may lie at the input.
        changed: nodes whose rule an override changed.
        negative: nodes that an output, bool ``[len(negative)]``, says of whether they read negative
            activations.
    """

    outputs: dict[str, str]
    images_first: tuple[str, ...]
    weighted: dict[str, bool]
    sums: tuple[str, ...]
    changed: tuple[str, ...]
    negative: tuple[str, ...]

    @staticmethod
    def from_dict(data: dict[str, Any]) -> PartFacts:
        """Rebuild from ``dataclasses.asdict``'s data."""
        lists = ("images_first", "sums", "changed", "negative")
        return PartFacts(**{**data, **{name: tuple(data[name]) for name in lists}})


@dataclass(frozen=True)
class Plan:
    """What was chosen in a model, and what its instrumented form gives.

    Attributes:
        facts: the original model's facts.
        image: the image input.
        score: name of the score tensor.
        score_note: how it was found, for the reader.
        output: the output that it was found from, if it was.
        shares: what makes probabilities of the scores in the model, ``"Softmax"`` or ``"Sigmoid"``;
            ``""`` where nothing does, or something else lies between.
        classes: number of classes, when known before the run.
        scores: name of the output that gives the scores as ``[N, C]``.
        layers: name, dtype and shape of the explained tensors ``[N, K, *S]``; there may be none.
        element: name, dtype and shape of the tensor whose elements, or whose weighted sums, are
            explained in place of class scores, with an axis of images.
        single: whether a run takes one image, the element's tensor having no axis of images.
        refusal: why there are no class scores, ``""`` where there are or none were wanted.
        detector: how a detector's numbers are read, where the model is one.
        scales: whether the layers are those that a detector's head reads, one a scale.
        checks: what only the lengths of a run tell of the layers.
        parts: what each part of the instrumented model gives, by the names of :func:`part_name`.
        feeds: tensors that are inputs in place of what computes them, and the inputs' names.
        warnings: what the reader should know.
        outer: sizes in bytes of the files beside the model that hold its weights, by name.
    """

    facts: ModelFacts
    image: ImageInput
    score: str
    score_note: str
    output: str | None
    shares: str
    classes: int | None
    scores: str
    layers: tuple[TensorFacts, ...]
    element: TensorFacts | None
    single: bool
    refusal: str
    checks: tuple[Check, ...]
    detector: DetectorFacts | None
    scales: bool
    parts: dict[str, PartFacts]
    feeds: dict[str, str]
    warnings: tuple[str, ...]
    outer: dict[str, int]

    @property
    def others(self) -> dict[str, TensorFacts]:
        """The model's own inputs besides the image, by name."""
        return {t.name: t for t in self.facts.inputs if t.name != self.image.name}

    @property
    def layer(self) -> TensorFacts | None:
        """The explained tensor, the first of several; ``None`` where there is none."""
        return self.layers[0] if self.layers else None

    def part(self, name: str, place: int = 0) -> PartFacts:
        """Return what a part gives at one of the layers."""
        return self.parts[part_name(name, place)]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready data."""
        return {
            **dataclasses.asdict(self),
            "facts": self.facts.to_dict(),
            "warnings": list(self.warnings),
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Plan:
        """Rebuild a plan from :meth:`to_dict`'s data."""

        def tensor(item: dict[str, Any]) -> TensorFacts:
            shape = item["shape"]
            sizes = None if shape is None else tuple(shape)
            return TensorFacts(item["name"], item["dtype"], sizes)

        return Plan(
            **{
                **data,
                "facts": ModelFacts.from_dict(data["facts"]),
                "image": ImageInput.from_dict(data["image"]),
                "layers": tuple(tensor(item) for item in data["layers"]),
                "element": None if data["element"] is None else tensor(data["element"]),
                "detector": None if data["detector"] is None else DetectorFacts(**data["detector"]),
                "checks": tuple(Check.from_dict(item) for item in data["checks"]),
                "parts": {n: PartFacts.from_dict(part) for n, part in data["parts"].items()},
                "warnings": tuple(data["warnings"]),
            }
        )
