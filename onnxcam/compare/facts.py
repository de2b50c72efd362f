"""What is known of one side of a comparison, as plain data that is stored with the results."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.imaging.preprocess import Preprocess
from onnxcam.surgeon.plan import ImageInput


@dataclass(frozen=True)
class Quantized:
    """How an integer input holds real numbers: ``(q - zero) * scale``."""

    scale: float
    zero: int

    def dequantized(self, tensor: NDArray[Any]) -> NDArray[np.float32]:
        """Return the real numbers that integers stand for, float32."""
        centred = tensor.astype(np.float32) - np.float32(self.zero)
        return np.asarray(centred * np.float32(self.scale), np.float32)

    def quantized(self, tensor: NDArray[Any], dtype: str) -> NDArray[Any]:
        """Return the integers that are nearest to real numbers, as ``QuantizeLinear`` does."""
        limits = np.iinfo(dtype)
        nearest = np.rint(tensor.astype(np.float32) / np.float32(self.scale)) + self.zero
        integers: NDArray[Any] = np.clip(nearest, limits.min, limits.max).astype(dtype)
        return integers


@dataclass(frozen=True)
class About:
    """One side: a model, what is explained in it, and how its images are prepared.

    Attributes:
        file: the model's name.
        sha256: of its file.
        image: its image input.
        ends: how the input's integers are read, where it is quantized.
        preprocess: how photographs are prepared; ``None`` where it takes none.
        preprocess_from: where that was found.
        score: the score tensor; of a detector, what is said of its scores.
        shares: ``"Softmax"``, ``"Sigmoid"`` or ``""``, see :class:`onnxcam.surgeon.plan.Plan`.
        classes: how many classes there are, when known before the run.
        layer: the explained tensor, or the image input.
        layer_shape: its shape.
        method: the method's name.
        runtime: what runs it.
        labels: names of the classes.
        asked: the layer as it was asked for, ``"auto"`` for one.
        boxes: whether it is a detector, whose boxes are compared.
        others: sha256 of what its inputs besides the image are fed, by name.
    """

    file: str
    sha256: str
    image: ImageInput
    ends: Quantized | None
    preprocess: Preprocess | None
    preprocess_from: str
    score: str
    shares: str
    classes: int | None
    layer: str
    layer_shape: tuple[int | str | None, ...] | None
    method: str
    runtime: str
    labels: tuple[str, ...] | None
    asked: str = "auto"
    boxes: bool = False
    others: dict[str, str] = field(default_factory=dict)

    def label(self, index: int) -> str | None:
        """Return the name of a class."""
        return self.labels[index] if self.labels and index < len(self.labels) else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> About:
        """Rebuild from :meth:`to_dict`'s data."""
        ends, how, shape = data["ends"], data["preprocess"], data["layer_shape"]
        lists = ("mean", "std", "pad", "size")
        if how is not None:
            how = {k: tuple(v) if k in lists and v is not None else v for k, v in how.items()}
        return About(
            **{
                **data,
                "image": ImageInput.from_dict(data["image"]),
                "ends": None if ends is None else Quantized(**ends),
                "preprocess": None if how is None else Preprocess(**how),
                "layer_shape": None if shape is None else tuple(shape),
                "labels": None if data["labels"] is None else tuple(data["labels"]),
            }
        )
