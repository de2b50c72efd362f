"""Which layer and score of the candidate are the reference's, where names differ.

1. What is given is taken.
2. A score of the same name, or at the same place among the outputs, with as many classes.
3. A layer of the same name and shape.
4. Of the layers with the same shape, the one whose values are most alike on one image; where none
   is alike, as in a broken candidate, the one as many layers before the end.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.compare.ends import quantized_outputs
from onnxcam.compare.facts import About
from onnxcam.compare.sides import Side
from onnxcam.errors import CompareError
from onnxcam.model.facts import Dim, TensorFacts
from onnxcam.surgeon.inspect import Inspection

ALIKE = 0.5  # correlation of activations; of unrelated layers it is about 0 to 0.3
MOST = 12  # layers whose values are looked at


def match_kind(reference: About, found: Inspection, path: Path) -> None:
    """Refuse a detector beside a model of image classes.

    Raises:
        CompareError: so it is.
    """
    boxes = bool(found.detector)
    if reference.boxes and not boxes:
        what = f"'{found.score.name}' holds scores of classes" if found.score else found.problems[0]
        joined = [e for e in quantized_outputs(path) if e.behind.endswith("Concat")]
        if joined:
            raise CompareError(
                f"{path}: '{joined[0].output}' joins boxes and scores, and is quantized as one, in "
                f"steps of {joined[0].step:.3g}: scores of 0 to 1 are lost. Leave the nodes "
                "behind the last convolutions of the head in float (nodes_to_exclude of "
                "onnxruntime's quantize_static)."
            )
        raise CompareError(
            f"{path}: the reference is a detector, and of the candidate no boxes are known: "
            f"{what.rstrip('.')}. Compare two detectors."
        )
    if boxes and not reference.boxes:
        raise CompareError(
            f"{path}: is a detector, and the reference '{reference.file}' has scores of image "
            "classes. Compare two detectors, or name the candidate's scores of classes, "
            "--candidate-score NAME."
        )


def match_score(side: Side, found: Inspection, path: Path, given: str = "auto") -> str:
    """Return the candidate's score tensor, ``"auto"`` where it is found as in any model.

    Args:
        side: the reference.
        found: what is known of the candidate with the given score.
        path: the candidate's file.
        given: the score that the user names.

    Raises:
        CompareError: no tensor of the candidate has the reference's classes.
    """
    reference = side.about
    if reference.boxes:
        return given
    if given != "auto":
        _check_classes(side, found.score, path)
        return given
    if found.score is not None and _classes(found.score) in (None, reference.classes):
        return "auto"
    if found.score is not None and reference.classes is None:
        return "auto"
    named = [t for t in found.facts.outputs if t.name == reference.score]
    others = [t for t in found.facts.outputs if _classes(t) == reference.classes]
    for tensor in [*named, *others]:
        if reference.classes is not None and _classes(tensor) == reference.classes:
            return tensor.name
    _check_classes(side, found.score, path)
    return given  # its own error says why there is no score


def _check_classes(side: Side, score: TensorFacts | None, path: Path) -> None:
    count, own = None if score is None else _classes(score), side.about.classes
    if count is not None and own is not None and count != own:
        assert score is not None
        raise other_classes(side, own, str(path), score.name, count)


def other_classes(side: Side, own: int, candidate: str, score: str, count: int) -> CompareError:
    """Return why scores of other classes cannot be compared.

    Args:
        side: the reference.
        own: how many classes it has.
        candidate: the candidate's file.
        score: its scores.
        count: how many classes these have.
    """
    way_out = (
        "--candidate-score NAME names another tensor; or record the reference again with --score."
        if side.recorded
        else "--score and --candidate-score name other tensors."
    )
    return CompareError(
        f"{candidate}: '{score}' has {count} classes, the reference's '{side.about.score}' {own}: "
        f"their answers cannot be compared. {way_out}"
    )


def _classes(tensor: TensorFacts) -> int | None:
    lengths = [d for d in (tensor.shape or ())[1:] if d != 1]
    return lengths[0] if len(lengths) == 1 and isinstance(lengths[0], int) else None


def match_layer(
    side: Side,
    found: Inspection,
    path: Path,
    values: Callable[[Sequence[str]], tuple[NDArray[Any], dict[str, NDArray[Any]]]] | None,
) -> tuple[str, str]:
    """Return the candidate's layer, and how it was found.

    Args:
        side: the reference.
        found: what is known of the candidate with its score.
        path: the candidate's file.
        values: returns the reference's layer and the candidate's tensors by name on one image;
            ``None`` where the reference was recorded, or no image can be read.

    Raises:
        CompareError: no layer has the shape of the reference's.
    """
    reference = side.about
    if reference.layer == reference.image.name or reference.layer_shape is None:
        return "auto", "the default layer"
    fits = [c for c in found.layers if _alike(c.tensor.shape, reference.layer_shape)]
    same = next((c for c in fits if c.tensor.name == reference.layer), None)
    if same is not None:
        return same.tensor.name, "by name"
    if not fits:
        raise CompareError(_none(reference, found, path, side.recorded))
    if values is not None:
        own, found_values = values([c.tensor.name for c in fits[-MOST:]])
        scored = [(likeness(own, found_values[c.tensor.name]), c) for c in fits[-MOST:]]
        likest, best = max(scored, key=lambda pair: pair[0])
        if likest >= ALIKE:
            return best.tensor.name, f"by shape and values, correlation {likest:.3f}"
    default = next((c for c in fits if c.tensor.name == found.default), fits[-1])
    if values is not None:
        warnings.warn(
            f"{path.name}: no layer's values are like those of '{reference.layer}': "
            f"'{default.tensor.name}' is taken for its shape and place. If it is another: "
            "--candidate-layer NAME.",
            stacklevel=3,
        )
    return default.tensor.name, "by shape and place"


def likeness(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the correlation of two tensors' numbers; 0 where their shapes do not go together.

    A tensor with channels last is turned to the other's order.
    """
    if a.shape != b.shape and a.ndim == b.ndim == 4:
        turned = np.moveaxis(b, -1, 1)
        b = turned if turned.shape == a.shape else np.moveaxis(b, 1, -1)
    if a.shape != b.shape:
        return 0.0
    x, y = (np.asarray(t, np.float64).ravel() for t in (a, b))
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 and np.isfinite(size) else 0.0


def _alike(shape: Sequence[Dim] | None, other: Sequence[Dim]) -> bool:
    """Whether shapes without their first axes can be the same, channels first or last."""
    if shape is None or len(shape) != len(other):
        return False
    own, theirs = list(shape[1:]), list(other[1:])
    if len(own) == 1:
        return False
    orders = [own, [own[-1], *own[:-1]], [*own[1:], own[0]]]
    channels = theirs[0] if len(theirs) > 2 else theirs[-1]
    same = any(
        all(
            not (isinstance(a, int) and isinstance(b, int)) or a == b
            for a, b in zip(o, theirs, strict=True)
        )
        for o in orders
    )
    # Other input sizes give other spatial lengths: the channels decide.
    return same or (len(own) > 2 and isinstance(channels, int) and own[0] == channels)


def _none(reference: About, found: Inspection, path: Path, recorded: bool) -> str:
    shape = list(reference.layer_shape or ())
    near = ", ".join(f"'{c.tensor}'" for c in found.layers[-3:]) or "none"
    way_out = (
        "--candidate-layer NAME names one whose maps show the same places; or record the reference "
        "again with --method saliency, which explains the image input, and compare with it."
        if recorded
        else "--layer NAME and --candidate-layer NAME name two whose maps show the same places, or "
        "--method saliency explains the image input of both."
    )
    return (
        f"{path}: no layer goes with the reference's '{reference.layer}' of shape {shape}; its "
        f"last ones are {near}. {way_out}"
    )
