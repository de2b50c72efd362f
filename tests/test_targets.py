"""Targets laid out for the instrumented graph."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnxcam.targets.classes import arrange

CODES = st.lists(st.lists(st.integers(-4, 9), min_size=1, max_size=4), min_size=1, max_size=5)


@given(CODES)
def test_every_code_finds_a_row_that_gives_it(codes: list[list[int]]) -> None:
    targets, ranks, rows = arrange(codes)
    assert targets.shape == (len(ranks), len(codes)) and (ranks >= 0).all()
    order = np.array([100 + r for r in range(5)])  # stands for the classes by rank
    for image, wanted in enumerate(codes):
        assert len(set(rows[image])) == len(wanted)
        for code, row in zip(wanted, rows[image], strict=True):
            given_class = targets[row, image]
            resolved = order[ranks[row]] if given_class < 0 else given_class
            assert resolved == (order[-1 - code] if code < 0 else code)


def test_the_same_targets_for_all_take_no_more_rows() -> None:
    targets, ranks, rows = arrange([[-1, -2, 7]] * 3)
    assert targets.tolist() == [[-1] * 3, [-1] * 3, [7] * 3]
    assert ranks.tolist() == [0, 1, 0] and rows == [[0, 1, 2]] * 3
