"""Texts as numbers: what a card's tables ``[inputs.NAME]`` say of a model's other inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import InputArrayError, PreprocessError, nearest
from onnxcam.inputs.labels import parse_labels
from onnxcam.model.facts import TensorFacts

_KIND = "bag of words"
_MOST = 1 << 20  # numbers of words
_KEYS = {"text", "words", "file", "first", "count"}
# What Keras' Tokenizer takes for spaces; an apostrophe belongs to its word.
_SPACES = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))


@dataclass(frozen=True)
class BagOfWords:
    """A text as one number for each word of a vocabulary: whether, or how often, it occurs.

    Words are made lower case and split as by Keras' ``Tokenizer``.

    Attributes:
        where: the card's table, for messages.
        numbers: each word's place in the array.
        listed: whether ``numbers`` is the order of a list, which must then fill the input.
        count: how often in place of whether.
    """

    where: str
    numbers: Mapping[str, int]
    listed: bool
    count: bool = False

    def encode(self, text: str, takes: TensorFacts) -> NDArray[Any]:
        """Return a text as the input takes it, ``[1, L]``.

        Raises:
            PreprocessError: the vocabulary does not fit the input.
            InputArrayError: a word is not in the vocabulary, or there is none.
        """
        array = np.zeros((1, self._length(takes)), takes.dtype)
        words = text.lower().translate(_SPACES).split()
        if not words:
            raise InputArrayError(f"input '{takes.name}': the text '{text}' has no words.")
        for word in words:
            number = self.numbers.get(word, array.shape[1])
            if number >= array.shape[1]:
                raise InputArrayError(
                    f"input '{takes.name}': the word '{word}' is not in the vocabulary of "
                    f"{self.where}.{nearest(word, self.numbers)} Leave it out or write another."
                )
            array[0, number] = array[0, number] + 1 if self.count else 1
        return array

    def _length(self, takes: TensorFacts) -> int:
        own = max(self.numbers.values()) + 1
        if own > _MOST:
            raise PreprocessError(
                f"{self.where}: a word has number {own - 1:,}; at most {_MOST:,}."
            )
        if takes.shape is None or len(takes.shape) != 2:
            raise PreprocessError(
                f"{self.where}: a {_KIND} is [N, L], but the model takes {takes}."
            )
        length = takes.shape[1] if isinstance(takes.shape[1], int) else own
        if self.listed and length != own:
            raise PreprocessError(
                f"{self.where}: {len(self.numbers)} words, the last of which is number {own - 1}, "
                f"for an input of {length} numbers, {takes}. 'first' is the first word's number, "
                "1 for Keras."
            )
        return length


def read_texts(
    tables: Mapping[str, Any], where: str, folder: Traversable | Path | None
) -> dict[str, BagOfWords]:
    """Return how texts become numbers, by the names of inputs; files are looked up in ``folder``.

    Raises:
        PreprocessError: unknown keys or values, or a file that cannot be read.
    """
    return {
        name: _read(table, f"{where}, [inputs.{name}]", folder) for name, table in tables.items()
    }


def _read(table: Any, where: str, folder: Traversable | Path | None) -> BagOfWords:
    if not isinstance(table, dict) or table.get("text") != _KIND:
        raise PreprocessError(f'{where}: write it as a table with text = "{_KIND}".')
    for key in table:
        if key not in _KEYS:
            raise PreprocessError(f"{where}: unknown key '{key}'.{nearest(key, _KEYS)}")
    first, count = table.get("first", 0), table.get("count", False)
    if type(first) is not int or first < 0 or type(count) is not bool:
        raise PreprocessError(f"{where}: first is a number from 0 on, count is true or false.")
    words = table.get("words")
    if words is None:
        name = table.get("file")
        if not isinstance(name, str) or folder is None:
            raise PreprocessError(f"{where}: needs words = [...] or file = '...'.")
        words = _words_in(folder / name, f"{where}: the words in '{name}'")
    if isinstance(words, dict):
        return BagOfWords(where, words, listed=False, count=count)
    if not isinstance(words, (list, tuple)):
        raise PreprocessError(f"{where}: words is a list.")
    numbers = {str(word).lower(): first + n for n, word in enumerate(words)}
    if len(numbers) != len(words) or not numbers:
        raise PreprocessError(f"{where}: needs words, each of them once.")
    return BagOfWords(where, numbers, listed=True, count=count)


def _words_in(path: Traversable | Path, what: str) -> tuple[str, ...] | dict[str, int]:
    """Return the words of a list, or with their numbers those of a JSON object.

    Raises:
        PreprocessError: the file cannot be read, or numbers are none.
    """
    try:
        text = path.read_text("utf-8").removeprefix("\ufeff")
        if not text.lstrip().startswith("{"):
            return parse_labels(text)
        numbers = {str(word).lower(): number for word, number in json.loads(text).items()}
    except (OSError, ValueError) as error:
        raise PreprocessError(f"{what}: cannot be read ({error}).") from error
    if not numbers or not all(type(n) is int and n >= 0 for n in numbers.values()):
        raise PreprocessError(f"{what}: an object gives each word its number, from 0 on.")
    return numbers
