"""From what a user names to what the instrumented graph takes."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import TargetError, nearest

Target = int | str
Targets = Target | Sequence[Target] | None


def resolve(targets: Targets, classes: int | None, labels: Sequence[str] | None) -> list[int]:
    """Return class indices; ``-r`` stands for the class of rank ``r`` in the prediction.

    Args:
        targets: an index, a label, ``"top:K"``, a list of these, or ``None`` for the predicted
            class.
        classes: number of classes, ``None`` when only the run knows.
        labels: names of the classes.

    Raises:
        TargetError: unknown or ambiguous label, index or rank out of range, empty list.
    """
    if targets is None:
        return [-1]
    if isinstance(targets, (int, str)) or not isinstance(targets, Sequence):
        return _one(targets, classes, labels)
    found = [code for target in targets for code in _one(target, classes, labels)]
    if not found:
        raise TargetError("no target given: the list is empty.")
    return found


def arrange(
    codes: Sequence[Sequence[int]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[list[int]]]:
    """Lay out every image's codes in rows, each of which has one rank for all images.

    Args:
        codes: for each image what :func:`resolve` gave for it.

    Returns:
        targets ``[T, N]`` and ranks ``[T]`` as the instrumented graph takes them, and for each
        image the rows of its codes.
    """
    ranks: list[int | None] = []
    rows: list[list[int]] = []
    for wanted in codes:
        mine: list[int] = []
        for code in wanted:
            rank = None if code >= 0 else -1 - code
            row = next(
                (
                    i
                    for i, other in enumerate(ranks)
                    if i not in mine and (rank is None or other is None or other == rank)
                ),
                len(ranks),
            )
            if row == len(ranks):
                ranks.append(rank)
            elif rank is not None:
                ranks[row] = rank
            mine.append(row)
        rows.append(mine)
    targets = np.full((len(ranks), len(codes)), -1, np.int64)
    for image, (wanted, mine) in enumerate(zip(codes, rows, strict=True)):
        targets[mine, image] = np.maximum(wanted, -1)
    return targets, np.array([r or 0 for r in ranks], np.int64), rows


def _one(target: Target, classes: int | None, labels: Sequence[str] | None) -> list[int]:
    if isinstance(target, bool) or not isinstance(target, str):
        try:
            index = operator.index(target)
        except TypeError as error:
            raise TargetError(f"target {target!r} is neither an index nor a label.") from error
        return [_index(index, classes)]
    text = target.strip()
    if text.lower().startswith("top:"):
        return _top(text, classes)
    if re.fullmatch(r"[-+]?[0-9]+", text):
        return [_index(int(text), classes)]
    return [_label(text, labels)]


def _index(index: int, classes: int | None) -> int:
    if index < 0 or (classes is not None and index >= classes):
        last = "" if classes is None else f" to {classes - 1}"
        raise TargetError(f"target {index} is out of range: classes count from 0{last}.")
    return index


def _top(text: str, classes: int | None) -> list[int]:
    count = text[4:].strip()
    if not re.fullmatch(r"[0-9]+", count) or int(count) == 0:
        raise TargetError(f"target '{text}': write top:5 for the five best classes.")
    if classes is not None and int(count) > classes:
        raise TargetError(f"target '{text}': the model has only {classes} classes.")
    return [-rank for rank in range(1, int(count) + 1)]


def _label(text: str, labels: Sequence[str] | None) -> int:
    if not labels:
        raise TargetError(
            f"target '{text}': the model's labels are not known. Give them with --labels FILE, "
            "or name the class by its index."
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
    raise TargetError(f"target '{text}': no such label.{nearest(text, labels)}")


def _names(label: str) -> set[str]:
    """A label, and its parts where it lists synonyms."""
    return {label.casefold(), *(part.strip().casefold() for part in label.split(","))}
