"""Operators newer than what ONNX Runtime releases, through the standard's function bodies.

``LinearAttention`` keeps one matrix for each head in place of keys and values (Katharopoulos et
al. 2020, "Transformers are RNNs"; with forgetting: Yang et al. 2024, "Gated Delta Networks").
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import onnxcam

from .cases.values import reseed, rng, weight
from .finite import Case, central, check

NEWEST = 28
RUNTIME = tuple(int(n) for n in onnxruntime.__version__.split(".")[:2])
pytestmark = pytest.mark.skipif(
    onnx.defs.onnx_opset_version() < NEWEST or RUNTIME < (1, 31), reason="needs newer packages"
)

reseed(__name__)
BATCH, TIMES, QUERIES, HEADS, DEPTH, WIDTH = 2, 3, 4, 2, 2, 3
TOKENS = [weight(BATCH, TIMES, n) for n in (QUERIES * DEPTH, HEADS * DEPTH, HEADS * WIDTH)]
STATE = weight(BATCH, HEADS, DEPTH, WIDTH)
DECAY, RATE = (s * rng.uniform(0.1, 1, (BATCH, TIMES, HEADS)) for s in (-1, 1))


def attention(kind: str, *more: np.ndarray | None, **settings: float) -> Case:
    operands = [*TOKENS, *more]
    wrt = [i for i, operand in enumerate(operands) if operand is not None]
    settings = {"q_num_heads": QUERIES, "kv_num_heads": HEADS, "update_rule": kind, **settings}
    return Case("LinearAttention", operands, settings, wrt, opset=27, unread=1)


def convolution(wrt: tuple[int, ...], *more: np.ndarray | None, **settings: str) -> Case:
    operands = [weight(2, 3, 5), weight(3, 1, 4), *more]
    dynamic = (0, 2) if wrt == (0,) else None
    return Case("CausalConvWithState", operands, settings, wrt, opset=27, unread=1, dynamic=dynamic)


CASES = [
    attention("linear", scale=0.7),
    attention("linear", STATE),
    attention("gated", STATE, DECAY),
    attention("delta", STATE, None, RATE),
    attention("gated_delta", None, DECAY, RATE),
    convolution((0,)),
    convolution((0, 1, 2), weight(3), activation="silu"),
    convolution((0, 1, 3), None, weight(2, 3, 3)),
]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_body_equals_central_differences(
    case: Case, dynamic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLOW_RELEASED_ONNX_OPSET_ONLY", "0")
    check(case, 2, dynamic)


def test_an_operator_that_no_runtime_has_yet() -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 13, opset_import: ["" : {NEWEST}]>
        net (double[2,4] a, double[2,4] b) => (double[2,4] y) {{ y = SwiGLU <alpha=1.5> (a, b) }}"""
    )
    feeds = {"a": rng.normal(size=(2, 4)), "b": rng.normal(size=(2, 4))}
    seed, v = rng.normal(size=(1, 2, 4)), rng.normal(size=(2, 4))
    forward = ReferenceEvaluator(model)
    changed = ReferenceEvaluator(onnxcam.add_gradients(model, "y", ["a", "b"]))
    found = changed.run(["gradient:a", "gradient:b"], {**feeds, "seed:y": seed})
    for name, g in zip(feeds, found, strict=True):
        slope = central(
            lambda h, n=name: forward.run(["y"], {**feeds, n: feeds[n] + h * v})[0], 1e-3
        )
        assert (seed * slope).sum() == pytest.approx((g * v).sum(), rel=1e-6)


OPERATORS = {case.op for case in CASES} | {"SwiGLU"}
