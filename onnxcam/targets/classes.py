"""From what a user names to what the instrumented graph takes."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import TargetError, nearest

Target = int | str
Targets = Target | Sequence[Target] | None


@dataclass(frozen=True)
class ClassTarget:
    """A class, by its index or by its rank in the prediction, 0 the predicted class."""

    index: int | None = None
    rank: int | None = None


_MOST = 12  # labels that a message lists
PREDICTED = ClassTarget(rank=0)


def resolve(
    targets: Targets, classes: int | None, labels: Sequence[str] | None
) -> list[ClassTarget]:
    """Return what targets mean.

    Args:
        targets: an index, a label, ``"top:K"``, ``"rank:K"``, the K-th best alone, a list of these,
            or ``None`` for the predicted class.
        classes: number of classes, ``None`` when only the run knows.
        labels: names of the classes.

    Raises:
        TargetError: unknown or ambiguous label, index or rank out of range, empty list.
    """
    if targets is None:
        return [PREDICTED]
    if isinstance(targets, (int, str)) or not isinstance(targets, Sequence):
        return _one(targets, classes, labels)
    found = [meant for target in targets for meant in _one(target, classes, labels)]
    if not found:
        raise TargetError("no target given: the list is empty.")
    return found


def arrange(
    wanted: Sequence[Sequence[ClassTarget]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[list[int]]]:
    """Lay out every image's targets in rows, each of which has one rank for all images.

    Args:
        wanted: for each image what :func:`resolve` gave for it.

    Returns:
        targets ``[T, N]`` and ranks ``[T]`` as the instrumented graph takes them, and for each
        image the rows of its targets.
    """
    ranks: list[int | None] = []
    rows: list[list[int]] = []
    for targets in wanted:
        mine: list[int] = []
        for target in targets:
            row = next(
                (
                    i
                    for i, other in enumerate(ranks)
                    if i not in mine and (None in (target.rank, other) or other == target.rank)
                ),
                len(ranks),
            )
            if row == len(ranks):
                ranks.append(target.rank)
            elif target.rank is not None:
                ranks[row] = target.rank
            mine.append(row)
        rows.append(mine)
    found = np.full((len(ranks), len(wanted)), -1, np.int64)
    for image, (targets, mine) in enumerate(zip(wanted, rows, strict=True)):
        found[mine, image] = [-1 if t.index is None else t.index for t in targets]
    return found, np.array([r or 0 for r in ranks], np.int64), rows


def probability(kind: str, scores: NDArray[Any], index: int) -> float | None:
    """Return a class's probability.

    Args:
        kind: what makes probabilities of scores: ``"Softmax"``, ``"Sigmoid"``, or ``""``, unknown.
        scores: of one image, ``[C]``.
        index: the class.
    """
    values = scores.astype(np.float64)
    if kind == "Softmax":
        return float(np.exp(values[index] - np.logaddexp.reduce(values)))
    return float(sigmoid(values[index])) if kind == "Sigmoid" else None


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + e^-x), exact for large x too."""
    return np.exp(-np.logaddexp(0, -x))


def _one(target: Target, classes: int | None, labels: Sequence[str] | None) -> list[ClassTarget]:
    if isinstance(target, bool) or not isinstance(target, str):
        try:
            index = operator.index(target)
        except TypeError as error:
            raise TargetError(f"target {target!r} is neither an index nor a label.") from error
        return [ClassTarget(_index(index, classes))]
    text = target.strip()
    if text.lower().startswith("top:"):
        return _top(text, classes)
    if text.lower().startswith("rank:"):
        try:
            return _top(f"top:{text[5:]}", classes)[-1:]
        except TargetError:
            raise TargetError(
                f"target '{text}': write rank:2 for the second best of {classes or 'the'} classes."
            ) from None
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return [ClassTarget(_index(int(text), classes))]
    return [ClassTarget(_label(text, labels))]


def _index(index: int, classes: int | None) -> int:
    if index < 0 or (classes is not None and index >= classes):
        last = "" if classes is None else f" to {classes - 1}"
        raise TargetError(f"target {index} is out of range: classes count from 0{last}.")
    return index


def _top(text: str, classes: int | None) -> list[ClassTarget]:
    count = text[4:].strip()
    if not re.fullmatch(r"[0-9]+", count) or int(count) == 0:
        raise TargetError(f"target '{text}': write top:5 for the five best classes.")
    if classes is not None and int(count) > classes:
        raise TargetError(f"target '{text}': the model has only {classes} classes.")
    return [ClassTarget(rank=rank) for rank in range(int(count))]


def _label(text: str, labels: Sequence[str] | None) -> int:
    if not labels:
        raise TargetError(
            f"target '{text}': the model's labels are not known. Give them with --labels FILE, "
            f"or name the class by its index.{_forms(text)}"
        )
    wanted = text.casefold()
    found = [i for i, name in enumerate(labels) if wanted in _names(name)]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(f"{i} ({labels[i]})" for i in found)
        raise TargetError(f"target '{text}' is ambiguous: {shown}. Name it by its index.")
    parts = {part.strip() for part in wanted.split(",")}
    found = [i for i, name in enumerate(labels) if parts & _names(name)] if len(parts) > 1 else []
    if len(found) == 1:  # a list of synonyms, one of which is the label
        return found[0]
    holding = [i for i, name in enumerate(labels) if wanted in re.findall(r"\w+", name.casefold())]
    if holding:
        shown = ", ".join(f"{i} ({labels[i]})" for i in holding[:_MOST])
        more = f" and {len(holding) - _MOST} more" if len(holding) > _MOST else ""
        raise TargetError(
            f"target '{text}': no label is just that. With the word: {shown}{more}. Name one by "
            f"its index or its label: -t {holding[0]}."
        )
    raise TargetError(f"target '{text}': no such label.{nearest(text, labels)}{_forms(text)}")


def _forms(text: str) -> str:
    """Return where other forms are described, for what may be one with a mistake."""
    other = not text or any(c in text for c in "[]:-.") or text.lower().startswith("best")
    return " 'onnxcam targets' lists what else can be named." if other else ""


def _names(label: str) -> set[str]:
    """A label, and its parts where it lists synonyms."""
    return {label.casefold(), *(part.strip().casefold() for part in label.split(","))}
