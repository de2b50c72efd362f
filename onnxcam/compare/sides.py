"""The two sides of a comparison: a model that is run, or a run that was recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxcam.compare.ends import quantized_input
from onnxcam.compare.facts import About
from onnxcam.errors import CompareError, ScoreError, quoted
from onnxcam.explainer import Explainer
from onnxcam.feeds import feeds_of
from onnxcam.finishing import finish
from onnxcam.methods.base import Method
from onnxcam.model.facts import ModelFacts
from onnxcam.notes import Note, note_at_input, note_on
from onnxcam.runner import BATCH, Program
from onnxcam.surgeon.plan import RANKS, TARGETS, ImageInput, Plan, of_images

Array = NDArray[Any]


@dataclass(frozen=True)
class Seen:
    """What one side says of one image.

    Attributes:
        scores: of all classes, ``[C]`` float32, before Softmax or Sigmoid.
        heat: the rectified map ``[*S]`` float32 of the target, all zeros where it says nothing.
        note: why it says nothing, see :mod:`onnxcam.notes`.
    """

    scores: NDArray[np.float32]
    heat: NDArray[np.float32]
    note: Note = ""


class Side(Protocol):
    """What a comparison asks of a side."""

    about: About

    def look(
        self, keys: Sequence[str], tensors: Sequence[Array], targets: Sequence[int] | None
    ) -> list[Seen]:
        """Return what it says of images.

        Args:
            keys: the sha256 of each image's file.
            tensors: the images as the side takes them, ``[1, ...]`` each.
            targets: the class that is explained, of each; ``None``: the predicted one.
        """


class ModelSide:
    """A model that is run."""

    def __init__(self, explainer: Explainer, program: Program | None = None, runtime: str = ""):
        """Take an explainer of one method and one layer.

        Args:
            explainer: says what is explained.
            program: runs it, in place of the explainer's own program.
            runtime: the name of what runs it.

        Raises:
            ScoreError: the model has no class scores.
            CompareError: the method takes many runs, there are several layers, or the model takes
                other inputs besides the image.
        """
        self.explainer, plan = explainer, explainer.plan
        self.program = program or explainer.program
        check_inputs(explainer.path, plan.facts, plan.image)
        if plan.refusal:
            raise _no_classes(explainer.path, plan)
        self._method = one_run(explainer)
        if len(plan.layers) > 1:
            raise CompareError(f"{explainer.path.name}: compare takes one layer, --layer NAME.")
        layer = plan.layer if self._method.space == "layer" else None
        self.about = About(
            file=str(explainer.path),
            sha256=digest(explainer.path),
            image=plan.image,
            ends=quantized_input(explainer.path, plan.image),
            preprocess=explainer.preprocess,
            preprocess_from=explainer.preprocess_from,
            score=plan.score,
            shares=plan.shares,
            classes=plan.classes,
            layer=layer.name if layer is not None else plan.image.name,
            layer_shape=None if layer is None else layer.shape,
            method=self._method.label,
            runtime=runtime or explainer.providers[0].removesuffix("ExecutionProvider"),
            labels=explainer.labels,
        )

    def look(
        self, keys: Sequence[str], tensors: Sequence[Array], targets: Sequence[int] | None
    ) -> list[Seen]:
        """Run the model, in batches of its own size; see :class:`Side`."""
        size = self.program.plan.image.batch or BATCH
        found: list[Seen] = []
        start = 0
        while start < len(tensors):
            stop = start + 1
            while stop < min(start + size, len(tensors)) and (
                tensors[stop].shape == tensors[start].shape
            ):
                stop += 1
            wanted = None if targets is None else targets[start:stop]
            found += self._run(np.concatenate(tensors[start:stop]), wanted)
            start = stop
        return found

    def _run(self, tensor: Array, targets: Sequence[int] | None) -> list[Seen]:
        plan, method = self.program.plan, self._method
        feeds: dict[str, Any] = feeds_of(plan, tensor, {}, [(1.0, 1.0)] * len(tensor))
        count = len(feeds[plan.image.name])
        if targets is not None:
            rest = [targets[-1]] * (count - len(targets))
            feeds[TARGETS] = np.array([[*targets, *rest]], np.int64)
            feeds[RANKS] = np.zeros(1, np.int64)
        facts = plan.part(method.label)
        record = [plan.scores, *(c.output for c in plan.checks)]
        values = self.program.run_there(feeds, [*record, *facts.outputs.values()], record)
        if plan.checks:
            self.program.verify(values, tuple(plan.image.channels_first(tensor[:1]).shape[2:]))
        maps = finish(method, facts, values, self.program.session.traffic, plan.image).signed
        scores = np.asarray(values[plan.scores])
        return [
            self._seen(scores[n], np.asarray(maps[n][0], np.float32), tensor[n])
            for n in range(len(tensor))
        ]

    def _seen(self, scores: Array, signed: NDArray[np.float32], image: Array) -> Seen:
        """Return the rectified map, and why it says nothing where it does."""
        largest, kind = float(np.abs(scores).max(initial=0)), self._method.proportional
        if self._method.space == "layer":
            note = note_on(signed, largest, proportional=kind)
            heat = np.maximum(signed, 0)
        else:
            reach = max(float(image.max()), -float(image.min()))
            note = note_at_input(signed, largest, reach, proportional=kind)
            axes = len(self.program.plan.image.axes)
            heat = np.abs(signed)
            heat = heat.max(axis=0) if heat.ndim > axes else heat
        heat = np.zeros_like(heat) if note else heat
        return Seen(scores.astype(np.float32), heat, note)


def check_inputs(path: Path, facts: ModelFacts, image: ImageInput) -> None:
    """Refuse a model with inputs besides the image that are not fed from it.

    Raises:
        CompareError: it takes others.
    """
    others = [t for t in facts.inputs if t.name != image.name and not of_images(t)]
    if others:
        raise CompareError(
            f"{path}: besides the image '{image.name}' it takes {', '.join(map(str, others))}, and "
            "models with further inputs are not compared yet. 'onnxcam explain' takes them with "
            "--input."
        )


def _no_classes(path: Path, plan: Plan) -> ScoreError:
    """Return why a model is refused; of the plan's own ways out compare has none."""
    if plan.detector is not None:
        return ScoreError(
            f"{path}: compare needs the scores of an image's classes, and the model is a detector, "
            f"whose scores are of boxes. onnxcam explain IMAGE -m {quoted(str(path))} -t box:0 "
            "explains its first detection."
        )
    return ScoreError(
        f"{path}: compare needs the scores of an image's classes, [N, classes], and "
        f"'{plan.element}' is not sure to hold them. --score NAME names them, and of the candidate "
        "--candidate-score NAME."
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
