"""Maps that say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcam.notes import CAPTIONS, TEXTS, Note, note_on

RNG = np.random.default_rng(4)
MAP = RNG.normal(size=(7, 7)).astype(np.float32)


@pytest.mark.parametrize(
    ("signed", "expected"),
    [
        (MAP, ""),
        (np.zeros((7, 7), np.float32), "zero"),
        (-np.abs(MAP) - 1, "negative"),
        (np.minimum(MAP, 0), "negative"),
        (np.full((7, 7), 0.5, np.float32), "constant"),
        (np.ones((1, 1), np.float32), "constant"),
        (MAP * np.float32(1e-9), "noise"),
        (MAP * np.float32(1e-4), ""),
    ],
)
def test_what_is_said(signed: np.ndarray, expected: Note) -> None:
    assert note_on(signed, 10.0, proportional=True) == expected


def test_size_says_nothing_of_methods_that_are_not_proportional() -> None:
    assert note_on(MAP * np.float32(1e-9), 10.0, proportional=False) == ""


def test_noise_is_told_by_the_scores_size() -> None:
    """A small score has a small map."""
    assert note_on(MAP * np.float32(1e-9), 1e-8, proportional=True) == ""


def test_every_note_has_words() -> None:
    assert set(TEXTS) == set(CAPTIONS) == {"", "zero", "noise", "negative", "constant"}
    assert all(bool(TEXTS[n]) == bool(CAPTIONS[n]) == bool(n) for n in TEXTS)
