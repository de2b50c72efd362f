"""An override reaches every node it asks for, also those that a rule takes together with others."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

import onnxcam
from onnxcam.gradient.backward import Where
from onnxcam.gradient.call import Call
from onnxcam.gradient.kinds import PerOperand, Rule
from onnxcam.graph.values import original_name

from .finite import session


@dataclass(frozen=True)
class Halved:
    """Sigmoid passes half of its derivative."""

    name: str = "halved"

    def rule_for(self, node: ir.Node, where: Where, beneath: Rule) -> Rule | None:
        if node.op_type != "Sigmoid" or not isinstance(beneath, PerOperand):
            return None
        derivative = beneath.makers[0]
        assert derivative is not None

        def maker(c: Call, g: ir.Value) -> ir.Value | None:
            c.walk.changed.append(original_name(c.node) or "")
            whole = derivative(c, g)
            return None if whole is None else c.op("Mul", whole, c.like(0.5))

        return replace(beneath, makers=(maker,))


@pytest.mark.parametrize("text", ["s = Sigmoid(x) y = Mul(x, s)", "s = Sigmoid(x) y = Mul(s, x)"])
@pytest.mark.parametrize("form", [{}, {"T": 1}, {"blocked": True}])
def test_an_override_of_sigmoid_reaches_the_one_inside_silu(text: str, form: dict) -> None:
    """dy = s + x s (1 - s) / 2, where the derivative of SiLU has no 1 / 2."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> '
        f"net (float[1,8,4,4] x) => (float[1,8,4,4] y) {{ {text} }}"
    )
    model.graph.node[0].name = "the gate"
    made = onnxcam.add_gradients(model, "y", "x", policy=Halved(), **form)
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 1, 8, 4, 4)).astype(np.float32)
    [found] = session(made.SerializeToString()).run(["gradient:x"], {"x": x, "seed:y": g[None]})
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(found[0], g * (s + x * s * (1 - s) / 2), atol=1e-6)
    assert {m.key: m.value for m in made.metadata_props}["onnxcam.changed"] == "the gate"


def slope_of_gelu(x: np.ndarray) -> np.ndarray:
    erf = np.vectorize(math.erf)(x / math.sqrt(2))
    return (1 + erf) / 2 + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def slope_of_silu(x: np.ndarray) -> np.ndarray:
    s = 1 / (1 + np.exp(-x))
    return s + x * s * (1 - s)


WIDE = {
    "y = LeakyRelu <alpha = 0.2> (x)": lambda x: np.where(x > 0, 1, 0.2),
    "a = Constant <value = float {0.3}> () y = PRelu(x, a)": lambda x: np.where(x > 0, 1, 0.3),
    "s = Sigmoid(x) y = Mul(s, x)": slope_of_silu,
    "y = Gelu(x)": slope_of_gelu,
    """r = Constant <value = float {1.41421356}> () one = Constant <value = float {1.0}> ()
       half = Constant <value = float {0.5}> ()
       d = Div(x, r) e = Erf(d) s = Add(e, one) m = Mul(x, s) y = Mul(m, half)""": slope_of_gelu,
}


@pytest.mark.parametrize("text", WIDE)
def test_guided_takes_what_only_damps_for_rectifiers_if_asked_to(text: str) -> None:
    """Then it passes the derivative of positive cotangents; else it changes nothing."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 20]> net (float[4,5] x) => (float[4,5] y) {{ {text} }}'
    )
    rng = np.random.default_rng(3)
    x, g = rng.normal(size=(2, 4, 5)).astype(np.float32)
    for policy, passed in (("guided", g), ("guided-wide", np.maximum(g, 0))):
        made = onnxcam.add_gradients(model, "y", "x", policy=policy)
        run = session(made.SerializeToString()).run
        [found] = run(["gradient:x"], {"x": x, "seed:y": g[None]})
        np.testing.assert_allclose(found[0], passed * WIDE[text](x), atol=1e-5)
