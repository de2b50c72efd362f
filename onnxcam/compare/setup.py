"""From files and options to two sides that can be compared."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.compare.ends import quantized_input
from onnxcam.compare.facts import About
from onnxcam.compare.feeding import Feeding
from onnxcam.compare.matching import match_layer, match_score
from onnxcam.compare.sides import ModelSide, Side, check_inputs
from onnxcam.errors import (
    CompareError,
    ImageError,
    InputArrayError,
    NoImageInputError,
    PreprocessError,
    ScoreError,
    naming,
)
from onnxcam.explainer import Explainer
from onnxcam.feeds import feeds_of
from onnxcam.imaging.preprocess import Preprocess
from onnxcam.inputs import cards
from onnxcam.runner import Runner, reading
from onnxcam.surgeon.inspect import Inspection, inspect

RUNTIMES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Options:
    """What a user may say of a comparison; see the options of ``onnxcam compare``."""

    layer: str = "auto"
    candidate_layer: str = "auto"
    score: str = "auto"
    candidate_score: str = "auto"
    method: str = "grad-cam"
    preprocess: str = "auto"
    candidate_preprocess: str | None = None
    labels: Path | None = None
    provider: str = "auto"
    candidate_provider: str | None = None
    runtime: str = "onnxruntime"
    cache: bool = True


@dataclass(frozen=True)
class Pair:
    """Two sides, what feeds both, and how they were matched."""

    reference: Side
    candidate: Side
    feeding: Feeding
    matched: dict[str, str]


def reference_side(path: Path, options: Options) -> ModelSide:
    """Return the reference.

    Raises:
        OnnxcamError: as :class:`onnxcam.Explainer`; it has no classes, or the method does not fit.
    """
    try:
        explainer = Explainer(
            path,
            layer=options.layer,
            score=options.score,
            preprocess=options.preprocess,
            labels=options.labels,
            providers=options.provider,
            cache=options.cache,
            method=options.method,
        )
    except ScoreError as error:
        if options.score != "auto":
            raise
        raise ScoreError(
            f"{path}: no output is sure to hold the scores of an image's classes, which compare "
            "needs: --score NAME names them."
        ) from error
    return ModelSide(explainer)


def pair(reference: Side, path: Path, options: Options, images: Sequence[Path]) -> Pair:
    """Return the two sides; the first image that can be read helps to match layers.

    Raises:
        CompareError: the candidate takes or gives something else, or has no layer in common.
        OnnxcamError: as :class:`onnxcam.Explainer`.
    """
    about = reference.about
    if about.method != options.method:
        raise CompareError(
            f"the reference was recorded with '{about.method}', not with '{options.method}'. "
            f"Compare with --method {about.method}."
        )
    found = inspect(path, options.candidate_score)
    if found.image is None:
        raise NoImageInputError(f"{path.name}: {found.problems[0]}")
    check_inputs(path, found.facts, found.image)
    ends = quantized_input(path, found.image)
    own = _own(path, found, options.candidate_preprocess)
    with naming(path, CompareError):
        feeding = Feeding(about, found.image, ends, own)
    score = match_score(about, found, path, options.candidate_score)
    if score != options.candidate_score:
        found = inspect(path, score)
    layer, said = options.candidate_layer, "as given"
    if layer == "auto":
        values, recorded = None, not isinstance(reference, ModelSide)
        if not recorded:
            tensors = _first(feeding, images)
            values = None if tensors is None else _Values(about, path, score, options, tensors)
        layer, said = match_layer(about, found, path, values, recorded)
    candidate = _candidate(path, about, options, layer, score)
    if options.preprocess == "auto" and own is None:
        _warn_of_card(path, found, about, feeding, images)
    matched = {
        "layer": f"{about.layer} and {candidate.about.layer}, {said}",
        "score": f"{about.score} and {candidate.about.score}",
        "preprocess": _prepared(about, feeding),
    }
    return Pair(reference, candidate, feeding, matched)


def _candidate(path: Path, about: About, options: Options, layer: str, score: str) -> ModelSide:
    """Return the candidate; the names of the reference's classes are its own, too."""
    explainer = Explainer(
        path,
        layer=layer,
        score=score,
        preprocess=Preprocess(color="grey" if about.image.channels == 1 else "RGB")
        if about.preprocess is not None
        else "auto",
        labels=about.labels,
        providers=options.candidate_provider or options.provider,
        cache=options.cache,
        method=options.method,
    )
    if options.runtime == "openvino":
        from onnxcam.compare.openvino import OPENVINO, openvino_program

        return ModelSide(explainer, openvino_program(explainer, layer, score), OPENVINO)
    return ModelSide(explainer)


def _prepared(about: About, feeding: Feeding) -> str:
    if about.preprocess is None:
        return f"arrays, taken as they are; the candidate's {feeding.said}"
    return f"{about.preprocess_from}; the candidate's images {feeding.said}"


def _warn_of_card(
    path: Path, found: Inspection, about: About, feeding: Feeding, images: Sequence[Path]
) -> None:
    """Warn where the candidate's own card gives other numbers than the reference's preprocessing.

    The numbers of one image are compared: forms of one network are described in different words.
    """
    assert found.image is not None
    try:
        at_hand = cards.all_cards(cards.given_cards("auto", path, False), found.facts)
        how, where, guessed = cards.find_preprocess(at_hand, path, found.image)
    except PreprocessError:  # it is not used
        return
    if about.preprocess is None or how is None or guessed:
        return
    fed = _first(feeding, images)
    own = _first(Feeding(about, found.image, None, how), images)
    if fed is None or own is None or not _differ(fed[1], own[1]):
        return
    warnings.warn(
        f"{path.name}: is fed images prepared as in {about.preprocess_from}, and its own {where} "
        "prepares them otherwise. If it was trained so: --candidate-preprocess auto.",
        stacklevel=3,
    )


def _differ(fed: NDArray[Any], own: NDArray[Any]) -> bool:
    """Whether two forms of an image differ by more than 2 % of what its numbers span."""
    if fed.shape != own.shape:
        return True
    a, b = np.asarray(fed, np.float64), np.asarray(own, np.float64)
    return bool(np.abs(a - b).mean() > _OTHER * np.ptp(b))


_OTHER = 0.02


def _own(path: Path, found: Inspection, asked: str | None) -> Preprocess | None:
    """Return the candidate's own preprocessing, where it is asked for."""
    if asked is None:
        return None
    assert found.image is not None
    given = cards.given_cards(asked, path, False)
    at_hand = cards.all_cards(given, found.facts)
    return cards.find_preprocess(at_hand, path, found.image)[0]


def _first(feeding: Feeding, images: Sequence[Path]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    for image in images:
        try:
            return feeding.prepare(image)
        except (ImageError, InputArrayError):
            continue
    return None


class _Values:
    """Tensors of both models on one image."""

    def __init__(
        self,
        about: About,
        path: Path,
        score: str,
        options: Options,
        tensors: tuple[NDArray[Any], NDArray[Any]],
    ) -> None:
        self._about, self._path, self._score = about, path, score
        self._options, self._tensors = options, tensors

    def __call__(self, names: Sequence[str]) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Return the reference's layer, and the candidate's tensors by name."""
        first, second = self._tensors
        reference = Path(self._about.file)
        own = self._read(reference, self._options.score, [self._about.layer], first)
        return own[self._about.layer], self._read(self._path, self._score, names, second)

    def _read(
        self, path: Path, score: str, names: Sequence[str], tensor: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        runner = Runner(
            path,
            layers=("auto",),
            score=score,
            engine="rules",
            providers=self._options.provider,
            cached=False,
        )
        method = reading(*names)
        program = runner.program([method])
        outputs = program.plan.parts[method.label].outputs
        feeds = feeds_of(program.plan, tensor, {}, [(1.0, 1.0)] * len(tensor))
        found = program.run(feeds, list(outputs.values()))
        return {name: np.asarray(found[outputs[name]])[:1] for name in names}


def compared_with_itself(options: Options) -> Options:
    """Return the options of a candidate that is the reference itself."""
    return replace(options, candidate_layer=options.layer, candidate_score=options.score)
