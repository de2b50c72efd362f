"""Every rule against finite differences; a rule without a case fails."""

from __future__ import annotations

import pytest

import onnxcam.gradient.add  # noqa: F401  (registers the rules)
from onnxcam.gradient.kinds import Stop
from onnxcam.gradient.registry import RULES

from .cases import CASES, SWEPT
from .finite import Case, check
from .test_contrib import CASES as OF_OTHERS
from .test_newest import OPERATORS as NEWEST
from .test_quantized_operators import CASES as CODED
from .test_sequences import OPERATORS as ON_SEQUENCES


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_equals_central_differences(case: Case) -> None:
    check(case, 3, dynamic=False)


@pytest.mark.parametrize("case", SWEPT, ids=str)
def test_rule_for_one_target(case: Case) -> None:
    check(case, 1, dynamic=False)


@pytest.mark.parametrize("case", [c for c in CASES if c.dynamic], ids=str)
def test_rule_holds_where_only_the_run_knows_the_shape(case: Case) -> None:
    check(case, 2, dynamic=True)


ELSEWHERE = {  # their derivative is not that of what they compute
    ("", "QuantizeLinear"): "test_quantized.py",
    ("", "DequantizeLinear"): "test_quantized.py",
    ("com.microsoft", "QuantizeLinear"): "test_quantized.py",
    ("com.microsoft", "DequantizeLinear"): "test_quantized.py",
    ("", "DynamicQuantizeLinear"): "test_quantized.py",
    ("com.microsoft", "DynamicQuantizeMatMul"): "test_quantized.py",
    ("com.microsoft", "DynamicQuantizeLSTM"): "test_recurrent.py",
    **{(c.domain, c.op): "test_quantized_operators.py" for c in CODED},
    **{("com.microsoft", op): "test_contrib.py" for op, *_ in OF_OTHERS},
    **{("", op): "test_sequences.py" for op in ON_SEQUENCES},
    **{("", op): "test_control.py" for op in ("If", "Loop", "Scan")},
    **{("", op): "test_newest.py" for op in NEWEST},
}


def test_every_rule_has_a_case() -> None:
    checked = {(c.domain, c.op) for c in CASES} | set(ELSEWHERE)
    differentiated = {key for key, found in RULES.items() if not isinstance(found, Stop)}
    assert differentiated <= checked, f"without a case: {sorted(differentiated - checked)}"
