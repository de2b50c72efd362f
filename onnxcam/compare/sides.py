"""The two sides of a comparison: a model that is run, or a run that was recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxcam.batch import Batch, Wanted
from onnxcam.compare.boxes import Boxes, Surest
from onnxcam.compare.ends import quantized_input
from onnxcam.compare.facts import About
from onnxcam.compare.feeding import Fed
from onnxcam.compare.measures import best
from onnxcam.errors import CompareError, NotFiniteError, ScoreError, WeightsError
from onnxcam.explainer import Explainer
from onnxcam.feeds import feeds_of
from onnxcam.job import Job
from onnxcam.layers import SCALE
from onnxcam.methods.base import Method
from onnxcam.notes import Note
from onnxcam.runner import Runner
from onnxcam.surgeon.plan import Plan
from onnxcam.surgeon.words import DETECTIONS, WEIGHTED
from onnxcam.targets.classes import PREDICTED, ClassTarget

Array = NDArray[Any]


@dataclass(frozen=True)
class Seen:
    """What one side says of one image.

    Attributes:
        scores: of all classes, ``[C]`` float32, before Softmax or Sigmoid; of a detector ``[1]``,
            the number that is explained.
        heat: the rectified map ``[*S]`` float32 of the target, all zeros where it says nothing.
        note: why it says nothing, see :mod:`onnxcam.notes`.
        boxes: what a detector sees.
    """

    scores: NDArray[np.float32]
    heat: NDArray[np.float32]
    note: Note = ""
    boxes: Boxes | None = None


class Side(Protocol):
    """What a comparison asks of a side.

    Attributes:
        about: what is known of it.
        inputs: what its inputs besides the image are fed, with a batch axis of 1, by name.
        recorded: whether its layer, score and method are settled.
    """

    about: About
    inputs: Mapping[str, Array]
    recorded: bool

    def look(
        self, keys: Sequence[str], fed: Sequence[Fed], like: Sequence[Seen] | None
    ) -> list[Seen]:
        """Return what it says of images.

        Args:
            keys: the sha256 of each image's file.
            fed: the images as the side takes them.
            like: what the reference says of each, whose class or box is explained; ``None``: the
                predicted class or the surest box is.
        """


class ModelSide:
    """A model that is run."""

    recorded = False

    def __init__(
        self,
        explainer: Explainer,
        inputs: Mapping[str, Array] | None = None,
        runner: Runner | None = None,
        runtime: str = "",
    ):
        """Take an explainer of one method and one layer.

        Args:
            explainer: says what is explained.
            inputs: what the model's inputs besides the image are fed, as
                :meth:`onnxcam.inputs.others.Others.check` returns it.
            runner: makes its programs, in place of the explainer's own.
            runtime: the name of what runs it.

        Raises:
            ScoreError: the model has neither class scores nor boxes.
            CompareError: the method takes many runs, or there are several layers.
        """
        self.explainer = explainer
        self.inputs: Mapping[str, Array] = inputs or {}
        boxes = explainer.plan.detector is not None
        if explainer.plan.refusal and not boxes:
            raise _no_classes(explainer.path, explainer.plan)
        self._method = one_run(explainer)
        kind = f"{WEIGHTED}{DETECTIONS}" if boxes else None
        setup = explainer._setup_of(kind)
        self.job = Job(replace(setup, runner=runner or setup.runner), kind, self.inputs)
        plan = self.job.plan
        if len(self.job.groups) > 1 or self.job.groups[0][0].how not in ("", SCALE):
            raise CompareError(f"{explainer.path.name}: compare takes one layer, --layer NAME.")
        layers = plan.layers if self._method.space == "layer" else ()
        self.about = About(
            file=str(explainer.path),
            sha256=digest(explainer.path),
            image=plan.image,
            ends=quantized_input(explainer.path, plan.image),
            preprocess=explainer.preprocess,
            preprocess_from=explainer.preprocess_from,
            score="the scores of boxes" if boxes else plan.score,
            shares=plan.shares,
            classes=plan.detector.classes if plan.detector is not None else plan.classes,
            layer=", ".join(layer.name for layer in layers) or plan.image.name,
            layer_shape=layers[0].shape if len(layers) == 1 else None,
            method=self._method.label,
            runtime=runtime or explainer.providers[0].removesuffix("ExecutionProvider"),
            labels=explainer.labels,
            asked=setup.layers.wanted[0],
            boxes=boxes,
            others={name: _digest_of(array) for name, array in self.inputs.items()},
        )

    def feeds(self, fed: Fed) -> dict[str, Array]:
        """Return what the model itself is fed for an image, as often as it takes images."""
        return feeds_of(self.job.plan, fed.tensor, self.inputs, [fed.item.scale])

    def look(
        self, keys: Sequence[str], fed: Sequence[Fed], like: Sequence[Seen] | None
    ) -> list[Seen]:
        """Run the model, in batches of its own size; see :class:`Side`."""
        wanted = [[self._wanted(None if like is None else like[n])] for n in range(len(fed))]
        found: list[Seen] = []
        for start in range(0, len(fed), self.job.size):
            stop = start + self.job.size
            tensors, items = zip(*fed[start:stop], strict=True)
            with np.errstate(invalid="ignore"):  # what is not finite is told of its image
                for batch in self.job.batches(tensors, items, wanted[start:stop]):
                    found += self._run(batch)
        return found

    def _wanted(self, like: Seen | None) -> Wanted:
        """Return what is explained."""
        reading = self.job.plan.detector
        if reading is not None:
            boxes = None if like is None else like.boxes
            return Surest("the surest box", reading, self.about.labels, like=boxes)
        return PREDICTED if like is None else ClassTarget(best(np.nan_to_num(like.scores))[0])

    def _run(self, batch: Batch) -> list[Seen]:
        """Run one batch; one that computes NaN on an image is run image by image."""
        try:
            explained, numbers = self.job.run(batch)
        except (NotFiniteError, WeightsError):
            if len(batch.items) == 1:
                return [Seen(np.full(1, np.nan, np.float32), np.zeros((1, 1), np.float32))]
            singles = zip(batch.tensor, batch.items, batch.targets, strict=False)
            parts = (self.job.batches([t[None]], [i], [w]) for t, i, w in singles)
            return [seen for [single] in parts for seen in self._run(single)]
        found = []
        for [one], scores in zip(explained, numbers, strict=False):
            heat = np.zeros_like(one.raw) if one.note else one.raw
            if self.about.boxes:
                scores = np.array([one.score])
            boxes = one.detected if isinstance(one.detected, Boxes) else None
            found.append(Seen(np.asarray(scores, np.float32), heat, one.note, boxes))
        return found


def _no_classes(path: Path, plan: Plan) -> ScoreError:
    """Return why a model is refused; of the plan's own ways out compare has none."""
    return ScoreError(
        f"{path}: compare needs the scores of an image's classes, [N, classes], or boxes and their "
        f"scores, and '{plan.element}' is not sure to hold them. --score NAME names scores of "
        "classes, and of the candidate --candidate-score NAME."
    )


def one_run(explainer: Explainer) -> Method:
    """Return the explainer's method.

    Raises:
        CompareError: there are several, or it takes many runs or layers.
    """
    method, *others = explainer.methods
    if others or method.drive is not None or method.joins:
        raise CompareError(
            f"compare takes one method of one run and layer, not '{method.label}'"
            f"{' and others' if others else ''}. Choose grad-cam, hires-cam or layer-cam."
        )
    return method


def digest(path: Path) -> str:
    """Return the sha256 of a file's content, ``""`` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _digest_of(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
