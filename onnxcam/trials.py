"""Try known ways to prepare an image: which one does a model answer best to?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxcam.errors import PreprocessError, TargetError
from onnxcam.explainer import Explainer
from onnxcam.imaging.preprocess import Preprocess
from onnxcam.inputs import cards
from onnxcam.inputs.images import ImageLike


@dataclass(frozen=True)
class Trial:
    """What a model says of an image that was prepared in one way.

    Attributes:
        names: the cards that prepare it so, the first one's name for ``--preprocess``.
        target: the predicted class.
        label: its name, where labels are known.
        confidence: its probability.
        entropy: of the probabilities, in bits: 0 where the model is sure of one class.
    """

    names: tuple[str, ...]
    target: int
    label: str | None
    confidence: float
    entropy: float


def try_cards(explainer: Explainer, image: ImageLike) -> list[Trial]:
    """Return what a classifier says under every known card that fits, the surest first.

    A sure answer is no proof: the right card is usually among the surest, and its class is what the
    picture shows.

    Raises:
        TargetError: the model has no classes to be sure of.
        OnnxcamError: as :meth:`onnxcam.Explainer.explain`.
    """
    if explainer.plan.refusal or explainer.plan.classes == 1:
        raise TargetError(f"{explainer.path.name}: it has no classes to be sure of.")
    ways: dict[Preprocess, list[str]] = {}
    for name, card in cards.known_cards().items():
        if card.preprocess is not None:
            try:
                fitted = cards.fitted(card.preprocess, explainer.plan.image, f"card '{name}'")
            except PreprocessError:
                continue
            ways.setdefault(fitted, []).append(name)
    found = []
    for preprocess, names in ways.items():
        scores = explainer.scores(image, preprocess).astype(np.float64)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        best = int(shares.argmax())
        labels = explainer.labels
        label = labels[best] if labels and best < len(labels) else None
        entropy = float(-(shares * np.log2(np.maximum(shares, 1e-300))).sum())
        found.append(Trial(tuple(names), best, label, float(shares[best]), entropy))
    return sorted(found, key=lambda t: t.entropy)


def table(trials: Sequence[Trial]) -> list[str]:
    """Return lines that show trials, the surest first."""
    lines = ["confidence  entropy  class"]
    for trial in trials:
        label = trial.label or f"class {trial.target}"
        lines.append(
            f"{trial.confidence:>10.3f}  {trial.entropy:>7.2f}  {label:<28}  "
            f"--preprocess {', '.join(trial.names)}"
        )
    return lines
