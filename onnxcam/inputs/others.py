"""A model's inputs besides the image."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import InputArrayError, PreprocessError, nearest
from onnxcam.inputs.cards import Card
from onnxcam.inputs.texts import BagOfWords
from onnxcam.model.facts import TensorFacts
from onnxcam.surgeon.plan import Plan, of_images

OtherInput = NDArray[Any] | float | str

_A_CARD = (
    "How words become numbers is told by a card beside the model, in a table [inputs.NAME]: see "
    "'Texts and other inputs' in what 'onnxcam targets' prints."
)
_STATES = frozenset(("h", "c", "hx", "cx", "hidden", "state", "states", "memory", "carry", "cell"))


class Others:
    """The inputs of a model besides the image.

    Attributes:
        names: the inputs by name.
        texts: how texts become numbers, by the names of inputs that take texts.
    """

    def __init__(self, plan: Plan, path: Path, cards: Iterable[Card]) -> None:
        """Take the model, its file for messages, and cards, of which the first counts.

        Raises:
            PreprocessError: a card is of an input that the model does not have.
        """
        self._plan, self._path = plan, path
        self.names = plan.others
        self.texts: dict[str, BagOfWords] = {}
        for name, text in ((name, t) for card in cards for name, t in card.texts.items()):
            if name not in self.names:
                raise PreprocessError(
                    f"{text.where}: {path} has no such input besides the image '{plan.image.name}'."
                    f"{nearest(name, self.names)}"
                )
            self.texts.setdefault(name, text)

    def check(self, given: Mapping[str, OtherInput] | None) -> dict[str, NDArray[Any]]:
        """Return the inputs as the model takes them, with a batch axis.

        A single number fills an input. A recurrent state that is not given is zeros, with a
        warning. The scale and size of images, where they are not given, are those of each image,
        and not here. A text becomes numbers as the card says.

        Raises:
            InputArrayError: one is missing or unknown, has another shape or dtype, or is a text
                that no card tells how to read.
            PreprocessError: a card's vocabulary does not fit the input.
        """
        given, takes = given or {}, self.names
        found = self.some(given)
        absent = [t for n, t in takes.items() if n not in given and not of_images(t)]
        self._complete(absent)
        return {**found, **{t.name: self._array(0, t) for t in absent}}

    def some(self, given: Mapping[str, OtherInput]) -> dict[str, NDArray[Any]]:
        """Return those inputs that are given as the model takes them, with a batch axis.

        Raises:
            InputArrayError: one is unknown, has another shape or dtype, or is a text that no card
                tells how to read.
            PreprocessError: a card's vocabulary does not fit the input.
        """
        takes = self.names
        for name in given:
            if name not in takes:
                why = "is the image" if name == self._plan.image.name else "is none of its inputs"
                raise InputArrayError(f"{self._path}: input '{name}' {why}.{nearest(name, takes)}")
        return {name: self._array(value, takes[name]) for name, value in given.items()}

    def _complete(self, absent: Iterable[TensorFacts]) -> None:
        """Refuse what is missing; warn of a state that is."""
        absent = list(absent)
        states = [t.name for t in absent if _is_state(t, self._plan)]
        missing = [t for t in absent if t.name not in states]
        if missing:
            texts = [f"--input {t.name}='a text'; " for t in missing if t.name in self.texts]
            raise InputArrayError(
                f"{self._path}: besides the image '{self._plan.image.name}' it takes "
                f"{', '.join(map(str, missing))}. Give them: {''.join(texts)}--input "
                "NAME=FILE.npy|zeros|NUMBER, or explain(image, inputs={name: array})."
            )
        if states:
            warnings.warn(
                f"{self._path.name}: the recurrent state {', '.join(states)} is not given; zeros "
                "are taken.",
                stacklevel=3,
            )

    def _array(self, value: OtherInput, takes: TensorFacts) -> NDArray[Any]:
        if isinstance(value, str):
            if takes.name not in self.texts:
                raise InputArrayError(
                    f"{self._path}: input '{takes.name}' is given a text, '{value}', and takes "
                    f"{takes}. {_A_CARD}"
                )
            return self.texts[takes.name].encode(value, takes)
        array, shape = np.asarray(value), takes.shape
        if array.ndim == 0 and shape:
            sizes = [d if isinstance(d, int) else 1 for d in shape]
            array = np.full(sizes, _as(array, takes, self._path))
        if shape is not None and array.ndim == len(shape) - 1:
            array = array[None]
        fits = shape is None or (
            array.ndim == len(shape)
            and all(
                not isinstance(d, int) or d == n for d, n in zip(shape, array.shape, strict=True)
            )
        )
        what = f"{self._path}: input '{takes.name}'"
        if not fits:
            raise InputArrayError(f"{what} of shape {list(np.shape(value))}: it takes {takes}.")
        if str(array.dtype) != takes.dtype:
            raise InputArrayError(
                f"{what} of dtype {array.dtype}: it takes {takes.dtype}. Convert it with "
                f".astype('{takes.dtype}')."
            )
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise InputArrayError(f"{what} holds NaN; every score would be NaN too.")
        return array


def _as(number: NDArray[Any], facts: TensorFacts, path: Path) -> NDArray[Any]:
    """Return a single number in an input's dtype, refused where it is another one there."""
    with np.errstate(all="ignore"):
        cast = number.astype(facts.dtype)
    same = cast == number if cast.dtype.kind in "iub" else np.isfinite(cast) == np.isfinite(number)
    if not same:
        raise InputArrayError(f"{path}: input '{facts.name}': {number} is no {facts.dtype}.")
    return cast


def _number(text: str) -> float | None:
    try:
        return 0.0 if text == "zeros" else float(text)
    except ValueError:
        return None


def _is_state(facts: TensorFacts, plan: Plan) -> bool:
    """Whether an input is a recurrent state: by its name, and an output is like it."""
    words = re.findall(r"[a-z]+", facts.name.lower())
    like = any((t.shape, t.dtype) == (facts.shape, facts.dtype) for t in plan.facts.outputs)
    return like and facts.dtype.startswith("float") and bool(_STATES & set(words))


def read_others(given: Sequence[str], texts: Collection[str] = ()) -> dict[str, OtherInput]:
    """Read inputs named as ``NAME=FILE.npy``, ``NAME=zeros``, ``NAME=NUMBER`` or ``NAME=TEXT``.

    ``texts`` are the names of inputs that take texts.

    Raises:
        InputArrayError: another form, or a file that is none of NumPy's.
    """
    found: dict[str, OtherInput] = {}
    for argument in given:
        name, equals, value = argument.partition("=")
        if not equals or not name or not value:
            raise InputArrayError(f"input '{argument}': write it as NAME=FILE.npy|zeros|NUMBER.")
        number = _number(value)
        if number is not None:
            found[name] = np.array(number)
        elif name in texts and not value.lower().endswith(".npy"):
            found[name] = value
        else:
            found[name] = _read_array(name, value)
    return found


def _read_array(name: str, file: str) -> NDArray[Any]:
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "it is no .npy file of NumPy"
        text = "" if file.lower().endswith(".npy") else f" Is it a text? {_A_CARD}"
        raise InputArrayError(f"input '{name}': {file} cannot be read ({reason}).{text}") from error
    if not isinstance(array, np.ndarray):
        raise InputArrayError(f"input '{name}': {file} holds several arrays; give a .npy file.")
    return array
