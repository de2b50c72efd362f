"""Targets laid out for the instrumented graph."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnxcam.targets.classes import ClassTarget, arrange

TARGET = st.builds(ClassTarget, st.integers(0, 9)) | st.integers(0, 3).map(
    lambda rank: ClassTarget(rank=rank)
)
WANTED = st.lists(st.lists(TARGET, min_size=1, max_size=4), min_size=1, max_size=5)


@given(WANTED)
def test_every_target_finds_a_row_that_gives_it(targets: list[list[ClassTarget]]) -> None:
    indices, ranks, rows = arrange(targets)
    assert indices.shape == (len(ranks), len(targets)) and (ranks >= 0).all()
    order = np.array([100 + r for r in range(5)])  # stands for the classes by rank
    for image, wanted in enumerate(targets):
        assert len(set(rows[image])) == len(wanted)
        for target, row in zip(wanted, rows[image], strict=True):
            given_class = indices[row, image]
            resolved = order[ranks[row]] if given_class < 0 else given_class
            assert resolved == (target.index if target.rank is None else order[target.rank])


def test_the_same_targets_for_all_take_no_more_rows() -> None:
    best, second, seventh = ClassTarget(rank=0), ClassTarget(rank=1), ClassTarget(7)
    indices, ranks, rows = arrange([[best, second, seventh]] * 3)
    assert indices.tolist() == [[-1] * 3, [-1] * 3, [7] * 3]
    assert ranks.tolist() == [0, 1, 0] and rows == [[0, 1, 2]] * 3
