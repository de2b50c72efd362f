"""From files and options to two sides that can be compared."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.compare.ends import quantized_input, quantized_outputs
from onnxcam.compare.facts import About
from onnxcam.compare.feeding import Fed, Feeding
from onnxcam.compare.inputs import check_names, inputs_of
from onnxcam.compare.matching import match_kind, match_layer, match_score
from onnxcam.compare.recorded import Recorded
from onnxcam.compare.sides import ModelSide, Side
from onnxcam.errors import (
    CompareError,
    ImageError,
    InferenceError,
    InputArrayError,
    NoImageInputError,
    PreprocessError,
    ScoreError,
    naming,
    quoted,
)
from onnxcam.explainer import Explainer
from onnxcam.feeds import feeds_of
from onnxcam.image_runs import reading
from onnxcam.imaging.preprocess import Preprocess
from onnxcam.inputs import cards
from onnxcam.inputs.cards import GUESS
from onnxcam.inputs.others import Others
from onnxcam.runner import Runner
from onnxcam.surgeon.inspect import Inspection, inspect

RUNTIMES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Options:
    """What a user may say of a comparison; see the options of ``onnxcam compare``."""

    layer: str = "auto"
    candidate_layer: str = "auto"
    score: str = "auto"
    candidate_score: str = "auto"
    method: str = "auto"
    preprocess: str = "auto"
    candidate_preprocess: str | None = None
    labels: Path | None = None
    provider: str = "auto"
    candidate_provider: str | None = None
    runtime: str = "onnxruntime"
    inputs: tuple[str, ...] = ()
    cache: bool = True


@dataclass(frozen=True)
class Pair:
    """Two sides, what feeds both, and how they were matched."""

    reference: Side
    candidate: ModelSide
    feeding: Feeding
    matched: dict[str, str]


def reference_side(path: Path, options: Options) -> ModelSide:
    """Return the reference.

    Raises:
        OnnxcamError: as :class:`onnxcam.Explainer`; it has neither classes nor boxes, or the method
            does not fit.
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
            f"{path}: no output is sure to hold the scores of an image's classes, or boxes and "
            "their scores, which compare needs: --score NAME names scores of classes."
        ) from error
    return ModelSide(explainer, inputs_of(explainer.others, options.inputs))


def pair(reference: Side, path: Path, options: Options, images: Sequence[Path]) -> Pair:
    """Return the two sides; the first image that can be read helps to match layers.

    Raises:
        CompareError: the candidate takes or gives something else, or has no layer in common; an
            image was not recorded.
        OnnxcamError: as :class:`onnxcam.Explainer`.
    """
    about = reference.about
    if options.method not in ("auto", about.method):
        raise CompareError(
            f"the reference was recorded with '{about.method}', not with '{options.method}'. "
            f"Compare with --method {about.method}."
        )
    if isinstance(reference, Recorded):
        reference.check(images)
    found = inspect(path, options.candidate_score)
    if found.image is None:
        raise NoImageInputError(f"{path.name}: {found.problems[0]}")
    names = {t.name for t in found.facts.inputs} - {found.image.name}
    if isinstance(reference, ModelSide):
        names |= reference.explainer.others.names.keys()
    check_names(options.inputs, names, reference.inputs if reference.recorded else ())
    ends = quantized_input(path, found.image)
    own = _own(path, found, options.candidate_preprocess)
    with naming(path, CompareError):
        feeding = Feeding(about, found.image, ends, own)
    match_kind(about, found, path)
    score = match_score(reference, found, path, options.candidate_score)
    if score != options.candidate_score:
        found = inspect(path, score)
    layer, said = options.candidate_layer, "as given"
    if about.boxes and layer == "auto":
        layer, said = about.asked, "by place in the head"
    elif layer == "auto":
        values = None
        if isinstance(reference, ModelSide):
            fed = _first(feeding, images)
            values = None if fed is None else _Values(reference, path, score, options, fed)
        layer, said = match_layer(reference, found, path, values)
    candidate = _candidate(path, reference, options, layer, score)
    _check_boxes(about, candidate.about)
    _warn_of_coarse_outputs(path)
    if options.preprocess == "auto" and own is None:
        _warn_of_card(path, found, about, feeding, images)
    matched = {
        "layer": f"{about.layer} and {candidate.about.layer}, {said}",
        "score": about.score if about.boxes else f"{about.score} and {candidate.about.score}",
        "preprocess": _prepared(about, feeding),
    }
    others = _others(reference, candidate)
    return Pair(reference, candidate, feeding, {**matched, **others})


def _candidate(path: Path, reference: Side, options: Options, layer: str, score: str) -> ModelSide:
    """Return the candidate; the names of the reference's classes are its own, too."""
    about = reference.about
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
        method=about.method,
    )
    inputs = inputs_of(explainer.others, options.inputs, reference.inputs)
    if options.runtime == "openvino":
        from onnxcam.compare.openvino import OPENVINO, OpenVinoRunner

        try:
            return ModelSide(explainer, inputs, OpenVinoRunner(path, layer, score), OPENVINO)
        except InferenceError as error:
            raise InferenceError(f"{error}{_with_fixed_lengths(explainer, about)}") from error
    return ModelSide(explainer, inputs)


def _with_fixed_lengths(explainer: Explainer, reference: About) -> str:
    """Return how to fix the lengths of images that a file leaves open, where it does."""
    image, how = explainer.plan.image, reference.preprocess
    if None not in image.space or how is None or how.size is None:
        return ""
    sizes = {"N": 1, "C": image.channels, "H": how.size[0], "W": how.size[1]}
    shape = ",".join(str(sizes[axis]) for axis in image.layout)
    path = explainer.path
    return (
        " If that is for the lengths that the file leaves open, fix them: python -m "
        f"onnxruntime.tools.make_dynamic_shape_fixed --input_name {quoted(image.name)} "
        f"--input_shape {shape} {quoted(str(path))} {quoted(f'{path.stem}-fixed.onnx')}"
    )


def _check_boxes(reference: About, candidate: About) -> None:
    """Refuse detectors of other classes, whose boxes do not go together.

    Raises:
        CompareError: so they are.
    """
    first, second = reference.classes, candidate.classes
    if reference.boxes and first and second and first != second:
        raise CompareError(
            f"{candidate.file}: its boxes are of {second} classes, the reference's of {first}: "
            "they cannot be compared. Compare models of the same classes."
        )


def _others(reference: Side, candidate: Side) -> dict[str, str]:
    """Return what is said of inputs besides the image."""
    names = dict.fromkeys([*reference.inputs, *candidate.inputs])
    said = [
        name
        if name in reference.inputs and name in candidate.inputs
        else f"{name} of the {'reference' if name in reference.inputs else 'candidate'} alone"
        for name in names
    ]
    return {"inputs": ", ".join(said)} if said else {}


def _prepared(about: About, feeding: Feeding) -> str:
    if about.preprocess is None:
        return f"arrays, taken as they are; the candidate's {feeding.said}"
    return f"images prepared {way_of(about)}; the candidate's {feeding.said}"


def way_of(about: About) -> str:
    """Return how photographs are prepared, for the reader."""
    if about.preprocess_from != GUESS or about.preprocess is None:
        return f"as in {about.preprocess_from}"
    how = about.preprocess
    size = "in their own size" if how.size is None else "to {}x{}".format(*how.size)
    numbers = f"less {_listed(how.mean)} over {_listed(how.std)}"
    return f"by a guess ({how.color} over {how.divide:g}, {numbers}, {how.resize} {size})"


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{n:g}" for n in numbers)


def _warn_of_coarse_outputs(path: Path) -> None:
    """Warn of probabilities that lose much in a quantized output: scores are read before it."""
    for end in quantized_outputs(path):
        if end.behind in ("Sigmoid", "Softmax") and (end.reach < _REACH or end.step > _OTHER):
            warnings.warn(
                f"{path.name}: the output '{end.output}' holds nothing above {end.reach:.3g}, in "
                f"steps of {end.step:.3g}: it is quantized behind {end.behind}, and what is "
                "compared is read before. Look at its answers as the model gives them, too.",
                stacklevel=3,
            )


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
    if fed is None or own is None or not _differ(fed[1].tensor, own[1].tensor):
        return
    warnings.warn(
        f"{path.name}: is fed images prepared {way_of(about)}, and its own {where} "
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
_REACH = 0.9


def _own(path: Path, found: Inspection, asked: str | None) -> Preprocess | None:
    """Return the candidate's own preprocessing, where it is asked for."""
    if asked is None:
        return None
    assert found.image is not None
    given = cards.given_cards(asked, path, False)
    at_hand = cards.all_cards(given, found.facts)
    return cards.find_preprocess(at_hand, path, found.image)[0]


def _first(feeding: Feeding, images: Sequence[Path]) -> tuple[Fed, Fed] | None:
    for image in images:
        try:
            return feeding.prepare(image)
        except (ImageError, InputArrayError):
            continue
    return None


class _Values:
    """Tensors of both models on one image."""

    def __init__(
        self, reference: ModelSide, path: Path, score: str, options: Options, fed: tuple[Fed, Fed]
    ) -> None:
        self._reference, self._path, self._score = reference, path, score
        self._options, self._fed = options, fed

    def __call__(self, names: Sequence[str]) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Return the reference's layer, and the candidate's tensors by name."""
        layer, path = self._reference.about.layer, self._reference.explainer.path
        own = self._read(path, self._options.score, [layer], self._fed[0])
        return own[layer], self._read(self._path, self._score, names, self._fed[1])

    def _read(
        self, path: Path, score: str, names: Sequence[str], fed: Fed
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
        plan = program.plan
        at_hand = cards.all_cards(cards.given_cards("auto", path, False), plan.facts)
        takes = Others(plan, path, at_hand)
        others = inputs_of(takes, self._options.inputs, self._reference.inputs)
        outputs = plan.parts[method.label].outputs
        found = program.run(
            feeds_of(plan, fed.tensor, others, [fed.item.scale]), list(outputs.values())
        )
        return {name: np.asarray(found[outputs[name]])[:1] for name in names}
