"""What a user names, as a portable model holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnxcam.errors import TargetError
from onnxcam.job import Wanted, kind_of
from onnxcam.surgeon.plan import Plan
from onnxcam.surgeon.portable import weigh
from onnxcam.surgeon.portable.aim import Aim, AnyClass, TheseClasses, TheseElements, TheseSums
from onnxcam.surgeon.portable.boxes import AnyRow, TheseBoxes
from onnxcam.surgeon.words import DETECTIONS, WEIGHTED
from onnxcam.targets.boxes import Box
from onnxcam.targets.classes import ClassTarget
from onnxcam.targets.elements import ElementTarget, indices
from onnxcam.targets.sequences import Step, Tokens
from onnxcam.targets.weighted import Best, Difference, Region, Similarity, Slices

_HELD = (
    "box:0, box:LABEL, class, label, top:K, rank:K, 'A - B', 'best of A,B', region:CLASS, step:N, "
    "tokens:, the similarity with another image, elements and slices of a tensor"
)


def aim_of(
    wanted: Sequence[Wanted] | None, required: bool, plan: Plan
) -> tuple[str | None, Callable[[Plan], Aim]]:
    """Return the kind of the targets, and what tells the graph of them.

    Args:
        wanted: what is explained, ``None`` for classes that each run is told.
        required: whether the run has to tell them.
        plan: what was chosen in the model for classes, or for a detector's boxes.

    Raises:
        TargetError: targets of several kinds, or (from the function) one that no graph holds.
    """
    if wanted is None and plan.detector is not None:
        return f"{WEIGHTED}{DETECTIONS}", lambda _: AnyRow(required)
    if wanted is None:
        return None, lambda _: AnyClass(required)
    kinds = list(dict.fromkeys(map(kind_of, wanted)))
    if len(kinds) > 1:
        first, other = (next(t for t in wanted if kind_of(t) == k) for k in kinds[:2])
        raise TargetError(
            f"the targets are of several kinds or tensors ({_named(first)} and {_named(other)}), "
            "and a portable model holds one: write a file for each, with one of them after -t and "
            "a name of its own after -o."
        )
    return kinds[0], lambda plan: _aim(wanted, plan)


def _named(target: Wanted) -> str:
    if not isinstance(target, ClassTarget):
        return f"'{target}'"
    return f"class {target.index}" if target.rank is None else f"rank:{target.rank + 1}"


def _aim(wanted: Sequence[Wanted], plan: Plan) -> Aim:
    classes = [t for t in wanted if isinstance(t, ClassTarget)]
    if classes:
        chosen = tuple(-1 if t.index is None else t.index for t in classes)
        return TheseClasses(chosen, tuple(t.rank or 0 for t in classes))
    if boxes := [t for t in wanted if isinstance(t, Box)]:
        return TheseBoxes(tuple(map(_surest, boxes)))
    assert plan.element is not None
    shape = (plan.element.shape or ())[1:]
    elements = [t for t in wanted if isinstance(t, ElementTarget)]
    if elements:
        return TheseElements(indices(elements, shape)[:, 0])
    return TheseSums(tuple(_weigh(t, shape) for t in wanted))


def _surest(target: Box) -> int | None:
    """Return the class of which a target is the surest box."""
    if target.number or target.point is not None:
        raise TargetError(
            f"target '{target}': which box that is, only a run tells. The input 'target' takes the "
            "row of any box, where -t is left out; box:0 and box:LABEL can be fixed, the surest."
        )
    return target.index


def _weigh(target: object, shape: Sequence[int | str | None]) -> weigh.Weigh:
    """Return what writes the weights of a target into the graph."""
    if isinstance(target, Similarity):
        return weigh.similarity(target.vector)
    if isinstance(target, Best):
        return weigh.best(target.classes)
    lengths = [d for d in shape if isinstance(d, int)]
    known = isinstance(target, Difference | Region | Slices | Step | Tokens)
    if known and len(lengths) < len(shape) and not isinstance(target, Region):
        raise TargetError(
            f"target '{target}': the tensor's lengths {list(shape)} are those of a run, so its "
            "weights cannot be written down. One of its numbers can: -t 'NAME[0,0]'."
        )
    if isinstance(target, Region):
        if not shape or not isinstance(shape[0], int):
            raise TargetError(f"target '{target}': how many classes there are, only a run tells.")
        target.weigh(
            np.ones((shape[0], 1, 1)) * (np.arange(shape[0]) == target.index)[:, None, None]
        )
        return weigh.region(target.index, shape[0])
    zeros = np.zeros(lengths)
    if isinstance(target, Slices) and target.reduce == "max":
        whole = Slices(target.text, target.tensor, target.index, "sum")
        return weigh.largest(whole.weigh(zeros).weights > 0)
    if isinstance(target, Step) and not target.name:
        row = target.weigh(zeros).weights.any(axis=1, keepdims=True)
        return weigh.largest(np.broadcast_to(row, lengths))
    if isinstance(target, Tokens):
        hot = target.weigh(zeros).weights > 0
        return weigh.likelihood([int(r.argmax()) for r in hot if r.any()], *lengths)
    if isinstance(target, Difference | Slices | Step):
        return weigh.fixed(target.weigh(zeros).weights)
    raise TargetError(f"target '{target}': no file can hold it. These go: {_HELD}.")
