"""Steps of a sequence and what is read of them: ``step:12``, ``text:a boot``, ``tokens:5,17,3``.

The tensor holds scores of classes for each step, ``[steps, classes]`` of an image.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import TargetError, quoted
from onnxcam.targets.classes import resolve
from onnxcam.targets.ctc import greedy, log_likelihood, log_softmax, steps_needed
from onnxcam.targets.weighted import WeightedTarget, Weights, call

Array = NDArray[Any]
SEQUENCE = "onnxcam:sequence"  # is found, see onnxcam.surgeon.words
Labels = tuple[str, ...]

_STEP = re.compile(r"step:\s*(?P<step>\d+)\s*(=(?P<name>.+))?", re.IGNORECASE)
_TEXT = re.compile(r"text(/(?P<blank>\d+))?:(?P<reading>.*)", re.IGNORECASE | re.DOTALL)
_TOKENS = re.compile(r"tokens:(?P<tokens>.+)", re.IGNORECASE)
_NUMBERS = re.compile(r"\s*\d+(\s*,\s*\d+)*\s*")
# What label files call the class that stands for no character.
_BLANKS = ("<blank>", "[blank]", "blank", "<blk>", "[ctcblank]", "<ctc>", "")
_BLANKS_AT_AN_END = ("-", "_", "~", "ε")
_SPACES = ("<space>", "[space]", "<sp>")


def in_steps(target: object, labels: Sequence[str] | None) -> WeightedTarget | None:
    """Return the target of a sequence that a text stands for, ``None`` where it is none.

    Args:
        target: what the user wrote.
        labels: names of the classes, with or without the blank.
    """
    text = target.strip("\n\t\r") if isinstance(target, str) else ""
    known = None if labels is None else tuple(labels)
    if found := _STEP.fullmatch(text.strip()):
        return Step(text.strip(), int(found["step"]), (found["name"] or "").strip(), known)
    if found := _TOKENS.fullmatch(text.strip()):
        tokens = tuple(part.strip() for part in found["tokens"].split(","))
        return Tokens(text.strip(), tokens, known)
    if found := _TEXT.fullmatch(text):
        blank = None if found["blank"] is None else int(found["blank"])
        return Text(text, found["reading"], blank, known)
    return None


@dataclass(frozen=True)
class _Written:
    """A target as the user wrote it."""

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def tensor(self) -> str:
        """The scores of steps are found."""
        return SEQUENCE


@dataclass(frozen=True)
class Step(_Written):
    """A class's score at one step; without a class, that of the one predicted there."""

    step: int
    name: str
    labels: Labels | None
    linear: bool = True

    def weigh(self, values: Array) -> Weights:
        """Return 1 for the score."""
        steps, classes = values.shape
        if self.step >= steps:
            raise TargetError(
                f"target '{self.text}' is out of range: steps count from 0 to {steps - 1}."
            )
        labels = _fitting(self.labels, classes)
        index = _class(self, self.name, labels, classes) if self.name else None
        chosen = int(values[self.step].argmax()) if index is None else index
        weights = np.zeros(values.shape)
        weights[self.step, chosen] = 1
        said = f"step:{self.step}={call(chosen, labels)}" if index is None else ""
        return Weights(weights, float(values[self.step, chosen]), said)


@dataclass(frozen=True)
class Tokens(_Written):
    """The log-likelihood of given tokens: sum_t log softmax(z_t)[token_t], from step 0 on."""

    tokens: tuple[str, ...]
    labels: Labels | None
    linear: bool = False

    def weigh(self, values: Array) -> Weights:
        """Return the sum's derivative by the scores: one-hot less softmax, at the tokens' steps."""
        steps, classes = values.shape
        count, labels = len(self.tokens), _fitting(self.labels, classes)
        chosen = [_class(self, token, labels, classes) for token in self.tokens]
        if count > steps:
            raise TargetError(f"target '{self.text}': {count} tokens for {steps} steps.")
        log_p, weights = log_softmax(values), np.zeros(values.shape)
        weights[:count] = -np.exp(log_p[:count])
        weights[range(count), chosen] += 1
        return Weights(weights, float(log_p[range(count), chosen].sum()))


@dataclass(frozen=True)
class Text(_Written):
    """The log-likelihood of a text over all its alignments, as CTC trains it.

    Attributes:
        reading: what is read: by labels, or by numbers of classes; ``""`` for what the model reads.
        blank: the blank's class, ``None`` where the labels tell it.
    """

    reading: str
    blank: int | None
    labels: Labels | None
    linear: bool = False

    def weigh(self, values: Array) -> Weights:
        """Return the log-likelihood's derivative by the scores."""
        steps, classes = values.shape
        names, blank = self._alphabet(classes)
        text = self._classes(names, blank, classes) if self.reading else greedy(values, blank)
        if not text:
            raise TargetError(
                f"target '{self.text}': the model reads nothing in the image, every step is the "
                f"blank. Of one step: -t step:0."
            )
        if steps_needed(text) > steps:
            raise TargetError(
                f"target '{self.text}': a text that needs {steps_needed(text)} steps (one a class, "
                f"and a blank between equal ones) for {steps} steps."
            )
        number, weights = log_likelihood(values, text, blank)
        said = ""
        if not self.reading:
            named = names is not None and all(names[c] for c in text)
            read = "".join(names[c] for c in text) if names and named else ",".join(map(str, text))
            said = f"{self.text}{read}"
        return Weights(weights, number, said)

    def _alphabet(self, classes: int) -> tuple[Labels | None, int]:
        """Return what every class reads, the blank nothing, and the blank."""
        if self.blank is not None and self.blank >= classes:
            raise TargetError(
                f"target '{self.text}': the blank {self.blank} is out of range; classes count "
                f"from 0 to {classes - 1}."
            )
        labels = self.labels or ()
        named = _named_blank(labels)
        blank = named if self.blank is None and len(labels) == classes else self.blank
        if blank is None:
            ends = [f"-t {quoted(f'text/{b}:{self.reading}')}" for b in (0, classes - 1)]
            raise TargetError(
                f"target '{self.text}': which of the {classes} classes is the blank is not known. "
                f"Say it: {ends[0]} for the first, {ends[1]} for the last."
            )
        names = [" " if n.casefold() in _SPACES else n for n in labels]
        if len(labels) == classes:
            names[blank] = ""
        elif len(labels) == classes - 1 and named is None:
            names.insert(blank, "")
        else:
            return None, blank
        return tuple(names), blank

    def _classes(self, names: Labels | None, blank: int, classes: int) -> list[int]:
        """Return the classes of the text that the user wrote."""
        if names is None:
            if not _NUMBERS.fullmatch(self.reading):
                raise TargetError(
                    f"target '{self.text}': no labels are known that fit the {classes} classes, so "
                    "a text is written in their numbers, text:3,5,5. Give labels with --labels "
                    "FILE, one a line, with or without the blank."
                )
            found = [int(n) for n in self.reading.split(",")]
        else:
            found = _spelled(self.text, self.reading, names)
        for index in found:
            if index >= classes or index == blank:
                what = "the blank" if index == blank else f"out of range of {classes} classes"
                raise TargetError(f"target '{self.text}': class {index} is {what}.")
        return found


def _spelled(target: str, text: str, names: Sequence[str]) -> list[int]:
    """Return the classes that spell a text, the longest label first; case counts if it can."""
    by_name: dict[str, int] = {}
    for index, name in enumerate(names):
        by_name.setdefault(name, index)
    for index, name in enumerate(names):
        by_name.setdefault(name.casefold(), index)
    by_name.pop("", None)
    longest, found, place = max(map(len, by_name), default=0), list[int](), 0
    while place < len(text):
        for length in range(longest, 0, -1):
            part = text[place : place + length]
            index = by_name.get(part, by_name.get(part.casefold(), -1))
            if len(part) == length and index >= 0:
                found.append(index)
                place += length
                break
        else:
            raise TargetError(f"target '{target}': no class reads '{text[place]}'.")
    return found


def _named_blank(labels: Labels) -> int | None:
    """Return the class whose label says that it is the blank, if one alone does."""
    found = [i for i, name in enumerate(labels) if name.casefold() in _BLANKS]
    ends = (0, len(labels) - 1) if labels else ()
    found = found or [i for i in ends if labels[i] in _BLANKS_AT_AN_END]
    return found[0] if len(found) == 1 else None


def _fitting(labels: Labels | None, classes: int) -> Labels | None:
    return labels if labels is not None and len(labels) == classes else None


def _class(target: _Written, name: str, labels: Labels | None, classes: int) -> int:
    """Return a class of a step, by index or label; of labels case counts if it can."""
    if labels is not None and labels.count(name) == 1:
        return labels.index(name)
    try:
        [found] = resolve(name, classes, labels)
    except TargetError as error:
        raise TargetError(f"target '{target.text}': {error}") from error
    except ValueError:
        found = None
    if found is None or found.index is None:
        raise TargetError(f"target '{target.text}': '{name}' is not one class.")
    return found.index
