"""Half of the standard's own node tests as they are given, the other with lengths of the run.

``python -m tests.gradient.nodes.cases`` checks all of them in both ways.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import onnx
import onnxruntime
import pytest

import onnxcam.gradient.add  # noqa: F401  (registers the rules)
from onnxcam.gradient.call import Call
from onnxcam.gradient.kinds import PerOperand
from onnxcam.gradient.registry import RULES

from .cases import Results, collect, result, sweep
from .check import CRASH, check, verdict
from .models import symbolic
from .probe import RIGHT, WRONG

PARTS = 8
RIGHT_ONES = 1228  # of onnx 1.23, in ONNX Runtime 1.32


@cache
def found(part: int) -> Results:
    variant = symbolic if part % 2 else None
    return sweep(collect()[part::PARTS], variant)


@pytest.mark.parametrize("part", range(PARTS))
def test_gradients_equal_central_differences(part: int) -> None:
    bad = {n: p for n, p in found(part).items() if result(n, p) in (WRONG, CRASH)}
    assert not bad


def test_no_fewer_are_right() -> None:
    counts = Counter(result(n, p) for part in range(PARTS) for n, p in found(part).items())
    if onnx.__version__[:5] == "1.23." and onnxruntime.__version__[:5] == "1.32.":
        assert counts[RIGHT] >= RIGHT_ONES, counts


def test_an_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = RULES["", "Sigmoid"]

    def unsound(call: Call, g):  # one percent off
        assert isinstance(sound, PerOperand) and sound.makers[0] is not None
        made = sound.makers[0](call, g)
        return call.op("Mul", made, call.like(1.01))

    case = next(case for case in collect() if case.name == "test_sigmoid")
    assert verdict(check(case)) == RIGHT
    monkeypatch.setitem(RULES, ("", "Sigmoid"), PerOperand(makers=(unsound,)))
    assert verdict(check(case)) == WRONG
