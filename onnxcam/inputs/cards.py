"""Model cards: preprocessing, labels, how texts become numbers, and where all this comes from.

Cards are TOML. ``models/cards`` has those of well-known families, recognised by their
``[match]`` table; a card beside the model (``model.toml`` for ``model.onnx``) takes precedence,
then what Hugging Face stores there, then the model's metadata.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from onnxcam.errors import LabelsError, PreprocessError, nearest
from onnxcam.imaging.preprocess import Preprocess
from onnxcam.inputs import hugging_face, ultralytics
from onnxcam.inputs.labels import MODELS, metadata_labels, parse_file, read_labels
from onnxcam.inputs.texts import BagOfWords, read_texts
from onnxcam.model.facts import ModelFacts
from onnxcam.surgeon.plan import ImageInput, Plan

MOST_PIXELS = 1 << 26
GUESS = "guess"  # where preprocessing comes from that nothing tells
GUESSED = "guessed that its images are"
_SIDE = 640  # of a detector's images, where the model does not say it
_NOTHING = ("background", "unlabeled", "unlabelled", "none", "n/a", "???")
_TABLES = {"card", "match", "preprocess", "labels", "model", "inputs"}


@dataclass(frozen=True)
class Card:
    """A card's content; ``where`` names it in messages.

    ``labels_of`` says whose the labels are: the ``"model"``'s, where another number of classes is
    an error; a ``"family"``'s, where they are then passed over; or ``"unsure"``, a warning.
    """

    where: str
    preprocess: Preprocess | None
    labels: tuple[str, ...] | None
    match: tuple[Mapping[str, Any], ...]
    layer: str | int | None = None
    score: str | None = None
    labels_of: Literal["model", "family", "unsure"] = "model"
    texts: Mapping[str, BagOfWords] = field(default_factory=dict)


def read_card(text: str, where: str, folder: Traversable | Path | None) -> Card:
    """Parse a card; label files are looked up in ``folder``.

    Raises:
        PreprocessError: not TOML, or unknown tables, keys or values.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PreprocessError(f"{where}: not a TOML card: {error}.") from error
    for table, content in data.items():
        if table not in _TABLES:
            raise PreprocessError(f"{where}: unknown table [{table}].{nearest(table, _TABLES)}")
        if not isinstance(content, dict) and table != "match":
            raise PreprocessError(f"{where}: '{table}' must be a table, [{table}].")
    settings, model = data.get("preprocess"), data.get("model", {})
    for key, value in model.items():
        if key not in ("layer", "score") or not isinstance(value, (str, int)):
            raise PreprocessError(f"{where}: [model] takes layer and score, names of tensors.")
    families = data.get("match", [])
    return Card(
        where=where,
        preprocess=None if settings is None else Preprocess.from_dict(settings, where),
        labels=_card_labels(data.get("labels"), where, folder),
        match=tuple(families) if isinstance(families, list) else (families,),
        layer=model.get("layer"),
        score=model.get("score"),
        texts=read_texts(data.get("inputs", {}), where, folder),
    )


def _read_file(path: Path) -> Card:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PreprocessError(f"{path}: cannot be read as a card ({error}).") from error
    return read_card(text, str(path), path.parent)


def _card_labels(
    table: Mapping[str, Any] | None, where: str, folder: Traversable | Path | None
) -> tuple[str, ...] | None:
    if table is None:
        return None
    if isinstance(table.get("names"), list):
        return tuple(str(n) for n in table["names"])
    name = table.get("file")
    if not isinstance(name, str) or folder is None:
        raise PreprocessError(f"{where}: [labels] needs names = [...] or file = '...'.")
    source = folder / name
    if not source.is_file():
        source = MODELS / name  # the lists that come with the package
    if not source.is_file():
        raise LabelsError(f"{where}: the file of labels '{name}' is missing.")
    before = table.get("before", [])
    if not isinstance(before, list):
        raise PreprocessError(f"{where}: [labels] takes before = [...], names of classes.")
    return (*map(str, before), *parse_file(source, f"{where}: the labels in '{name}'"))


@cache
def known_cards() -> dict[str, Card]:
    """Return the package's cards by name."""
    found = {}
    for entry in sorted((MODELS / "cards").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            name = entry.name.removesuffix(".toml")
            card = read_card(entry.read_text("utf-8"), f"card '{name}'", MODELS)
            found[name] = replace(card, labels_of="family")
    return found


def matches(card: Card, facts: ModelFacts) -> bool:
    """Whether a model belongs to one of a card's families: all patterns of it must match."""
    have: dict[str, Sequence[str]] = {
        "producer": [facts.producer],
        "inputs": [_signature(t.name, t.shape) for t in facts.inputs],
        "outputs": [_signature(t.name, t.shape) for t in facts.outputs],
        "weights": facts.weights,
    }
    return any(_fits(family, have) for family in card.match if family)


def _fits(family: Mapping[str, Any], have: Mapping[str, Sequence[str]]) -> bool:
    for key, patterns in family.items():
        wanted = [patterns] if isinstance(patterns, str) else patterns
        if key not in have or not all(fnmatch.filter(have[key], p) for p in wanted):
            return False
    return True


def _signature(name: str, shape: tuple[int | str | None, ...] | None) -> str:
    """Return ``input(N,3,224,224)``; dynamic lengths all read N."""
    sizes = "?" if shape is None else ",".join(str(d) if isinstance(d, int) else "N" for d in shape)
    return f"{name}({sizes})"


def beside(path: Path) -> Card | None:
    """Return the card beside a model: ``NAME.toml``, or ``model.toml`` of the only model there."""
    own = path.with_suffix(".toml")
    shared = path.with_name("model.toml")
    if own.is_file():
        card = own
    elif shared.is_file() and len(list(path.parent.glob("*.onnx"))) == 1:
        card = shared
    else:
        return None
    return _read_file(card)


def from_hugging_face(path: Path, preprocess: bool, labels: bool) -> list[Card]:
    """Return the cards that Hugging Face's files beside a model are, as far as they are needed."""
    found = []
    file = hugging_face.find(path, hugging_face.IMAGES)
    if file is not None and preprocess:
        found.append(Card(str(file), hugging_face.preprocess(file), None, ()))
    file = hugging_face.find(path, hugging_face.LABELS)
    if file is not None and labels:
        of: Literal["model", "unsure"] = "model" if hugging_face.belongs(file, path) else "unsure"
        found.append(Card(str(file), None, hugging_face.labels(file), (), labels_of=of))
    return found


def from_metadata(facts: ModelFacts) -> Card | None:
    """Return the card in the model's metadata.

    Read are ``onnxcam.card`` (a whole card), the ONNX standard's image properties
    (``Image.BitmapPixelFormat``, ``Image.NominalPixelRange``) and the lists of labels that
    some exporters store as ``names``, ``labels`` or ``classes``.
    """
    where = f"metadata of {facts.file}"
    if "onnxcam.card" in facts.metadata:
        return read_card(facts.metadata["onnxcam.card"], where, None)
    labels = metadata_labels(facts.metadata)
    preprocess = _metadata_pixels(facts.metadata) or ultralytics.preprocessing(facts.metadata)
    return Card(where, preprocess, labels, ()) if labels or preprocess else None


def _metadata_pixels(metadata: Mapping[str, str]) -> Preprocess | None:
    formats = {"Gray8": "grey", "Rgb8": "RGB", "Bgr8": "BGR"}
    color = formats.get(metadata.get("Image.BitmapPixelFormat", ""))
    scales = {
        "NominalRange_0_255": (1.0, 0.0, 1.0),
        "Normalized_0_1": (255.0, 0.0, 1.0),
        "Normalized_1_1": (255.0, 0.5, 0.5),
    }
    scale = scales.get(metadata.get("Image.NominalPixelRange", ""))
    if color is None or scale is None:
        return None
    divide, mean, std = scale
    return Preprocess(color=color, divide=divide, mean=(mean,), std=(std,))


def given_cards(
    requested: str | Path | Mapping[str, Any] | Preprocess, model: Path, labels: bool = True
) -> list[Card]:
    """Return the requested card and those beside the model, if there are any.

    ``labels`` says whether labels are looked for.

    Raises:
        PreprocessError: the requested card does not exist, or a card is invalid.
    """
    found: list[Card] = []
    if isinstance(requested, Preprocess):
        found.append(Card("the given preprocessing", requested, None, ()))
    elif isinstance(requested, Mapping):
        made = Preprocess.from_dict(requested, "the given preprocessing")
        found.append(Card("the given preprocessing", made, None, ()))
    elif str(requested) != "auto":
        found.append(_requested(str(requested)))
    own = beside(model)
    found += [own] if own is not None else []
    needed = all(c.preprocess is None for c in found)
    return [*found, *from_hugging_face(model, needed, labels and all(not c.labels for c in found))]


def all_cards(given: list[Card], facts: ModelFacts) -> list[Card]:
    """Append the card in the model's metadata, then the cards of known families."""
    own = from_metadata(facts)
    known = [c for c in known_cards().values() if matches(c, facts)]
    return [*given, *([own] if own is not None else []), *known]


def find_preprocess(
    cards: list[Card],
    model: Path,
    image: ImageInput,
    detector: bool = False,
    told: Collection[str] = (),
) -> tuple[Preprocess | None, str, str | None]:
    """Return preprocessing, where it came from, and a warning or ``None``.

    The first card with preprocessing counts. If there is none, preprocessing is guessed from
    layout and dtype, with a warning. Models that take no photographs have none.

    Args:
        cards: the first with preprocessing counts.
        model: the file, for messages.
        image: the image input.
        detector: whether the model is one.
        told: what it is told of an image, see :func:`onnxcam.surgeon.plan.of_images`.

    Raises:
        PreprocessError: a card's preprocessing does not fit the model.
    """
    for card in cards if image.axes == "HW" else []:
        if card.preprocess is not None:
            return fitted(card.preprocess, image, card.where), card.where, None
    if image.channels not in (1, 3) or image.axes != "HW":
        return None, "nothing", None
    guess, what = _guess(image, detector, told)
    if detector:
        guess = replace(guess, size=(image.height or _SIDE, image.width or _SIDE))
    warning = (
        f"{model.name}: {GUESSED} {what}. If not: --preprocess NAME|FILE.\n"
        "Nothing says how they are prepared, and a wrong guess gives wrong predictions and "
        f"heatmaps. Known names: {', '.join(known_cards())}; 'onnxcam inspect {model.name} --try "
        "IMAGE' tries them.\n"
        f"Or describe it in a card '{model.with_suffix('.toml').name}' beside the model."
    )
    return fitted(guess, image, GUESS), GUESS, warning


def find_labels(
    requested: str | Path | Sequence[str] | None, cards: list[Card], plan: Plan, certain: bool
) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return the names of the classes, and warnings of labels that were passed over.

    Args:
        requested: a file, or the labels themselves; ``None``: the first card that has labels.
        cards: cards, the first of several counts.
        plan: what was chosen in the model.
        certain: whether a model's own labels must be those of what was chosen.

    Raises:
        LabelsError: their number is not the model's.
    """
    classes, detector = plan.classes, plan.detector
    if requested is not None:
        labels = read_labels(requested)
        if detector is not None and detector.first:
            return _from_one(labels, detector.classes), []
        if classes is not None and len(labels) != classes:
            raise LabelsError(f"{len(labels)} labels for a model of {classes} classes.")
        return labels, []
    passed_over: list[str] = []
    for card in cards:
        if card.labels is None:
            continue
        if detector is not None and detector.first:
            return _from_one(card.labels, detector.classes), passed_over
        if classes in (None, len(card.labels)):
            return card.labels, passed_over
        message = (
            f"{card.where}: has {len(card.labels)} labels, and '{plan.score}' has "
            f"{classes} classes. Give the right ones with --labels FILE."
        )
        if card.labels_of == "model" and certain and not plan.refusal:
            raise LabelsError(message)
        if card.labels_of != "family":
            passed_over.append(message)
    return None, passed_over


def _from_one(labels: tuple[str, ...], classes: int | None) -> tuple[str, ...]:
    """Return labels of which the first is that of nothing, for classes that are counted from 1."""
    if labels and labels[0].strip(" _").lower() not in _NOTHING:
        labels = ("background", *labels)
    if classes is not None and len(labels) != classes + 1:
        raise LabelsError(
            f"{len(labels) - 1} labels for a detector of {classes} classes, which are counted from "
            f"1. Give {classes}, one for every number; of COCO's 90 numbers 10 have no class."
        )
    return labels


def _requested(name: str) -> Card:
    known = known_cards()
    if name in known:
        return known[name]
    path = Path(name)
    if path.is_file():
        return _read_file(path)
    raise PreprocessError(
        f"preprocess '{name}': neither a known card nor a file.{nearest(name, known)} "
        f"Known: {', '.join(known)}."
    )


def fitted(preprocess: Preprocess, image: ImageInput, where: str) -> Preprocess:
    """Fill in the model's size.

    Raises:
        PreprocessError: the preprocessing does not fit the model; ``where`` names it.
    """
    own = (image.height, image.width)
    height, width = preprocess.size or (own[0] or 224, own[1] or 224)
    if (own[0] or height, own[1] or width) != (height, width):
        raise PreprocessError(
            f"{where}: gives images of {height}x{width}, but the input '{image.name}' takes "
            f"{own[0] or 'any'}x{own[1] or 'any'}."
        )
    if height * width > MOST_PIXELS:
        raise PreprocessError(
            f"{where}: the input '{image.name}' takes images of {height}x{width}, more than "
            f"{MOST_PIXELS:,} pixels. Is the file damaged?"
        )
    channels = 1 if preprocess.color == "grey" else 3
    if channels != image.channels:
        raise PreprocessError(
            f"{where}: gives {channels} channel(s) ({preprocess.color}), but the input "
            f"'{image.name}' takes {image.channels}."
        )
    return replace(preprocess, size=(height, width))


def _guess(image: ImageInput, detector: bool, told: Collection[str]) -> tuple[Preprocess, str]:
    if image.channels == 1:
        if image.dtype == "uint8":
            return Preprocess(color="grey"), "grey pixels of 0..255"
        return Preprocess(color="grey", divide=255.0), "grey pixels scaled to 0..1"
    if image.dtype in ("uint8", "int8"):
        return Preprocess(), "RGB pixels of 0..255"
    if image.layout == "NHWC":
        tf = Preprocess(divide=127.5, mean=(1.0,))
        return tf, "RGB scaled to -1..1"
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    if "scale" in told:
        paddle = Preprocess(divide=255.0, mean=mean, std=std, interpolation="bicubic")
        return paddle, "RGB with ImageNet's mean and deviation, stretched to the size"
    if told:
        return Preprocess(divide=255.0), "RGB scaled to 0..1, stretched to the size"
    if detector:
        boxed = Preprocess(resize="letterbox", divide=255.0)
        return boxed, "RGB scaled to 0..1, fitted inside and padded"
    torch = Preprocess(resize="shorter", shorter=None, divide=255.0, mean=mean, std=std)
    return torch, "RGB with ImageNet's mean and deviation"
