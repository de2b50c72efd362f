"""Half of the standard's own node tests as they are given, the other with lengths of the run.

``python -m tests.gradient.nodes.cases`` checks all of them in both ways.
"""

from __future__ import annotations

import onnx
import onnxruntime
import pytest

import onnxcam.gradient.add  # noqa: F401  (registers the rules)
from onnxcam.gradient.call import Call
from onnxcam.gradient.kinds import PerOperand
from onnxcam.gradient.registry import RULES

from .cases import collect, result, sweep
from .check import CRASH, check, verdict
from .models import symbolic
from .probe import RIGHT, WRONG

# How many of each part are right: of onnx 1.23, in ONNX Runtime 1.32; 1,228 in all.
RIGHT_ONES = (159, 154, 163, 152, 152, 144, 153, 151)
PARTS = len(RIGHT_ONES)
KNOWN = onnx.__version__[:5] == "1.23." and onnxruntime.__version__[:5] == "1.32."


@pytest.mark.parametrize("part", range(PARTS))
def test_gradients_equal_central_differences(part: int) -> None:
    found = sweep(collect()[part::PARTS], symbolic if part % 2 else None)
    kinds = {name: result(name, one) for name, one in found.items()}
    assert not {n: found[n] for n, kind in kinds.items() if kind in (WRONG, CRASH)}
    if KNOWN:  # no fewer than there were
        assert list(kinds.values()).count(RIGHT) >= RIGHT_ONES[part]


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
