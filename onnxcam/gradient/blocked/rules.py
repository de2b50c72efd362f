"""Rules with a form of their own for ONNX Runtime's blocked layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxcam.gradient.backward import Where
from onnxcam.gradient.blocked.layout import is_aligned
from onnxcam.gradient.blocked.masks import inside, passed_inside, scaled
from onnxcam.gradient.blocked.max_pool import separated_max
from onnxcam.gradient.call import Call
from onnxcam.gradient.helpers.masks import masked_early, rectifier_bounds
from onnxcam.gradient.kinds import Maker, PerOperand, Rule
from onnxcam.gradient.rules.elementwise import factor
from onnxcam.gradient.rules.pool import expand_space, max_windows, to_maxima


@dataclass(frozen=True)
class Blocked:
    """Write a gradient with operators that ONNX Runtime on CPU runs in blocks of channels.

    The values are the same up to rounding. It takes one cotangent, in float32.
    """

    name: str = "blocked"
    same_values: bool = True

    def rule_for(self, node: ir.Node, where: Where, beneath: Rule) -> Rule | None:
        """Return ``beneath`` with blocked makers, which fall back on the plain ones."""
        forms = None if node.domain else _FORMS.get(node.op_type)
        if forms is None or not isinstance(beneath, PerOperand):
            return None
        makers = list(beneath.makers)
        for index, form in enumerate(forms):
            plain = makers[index]
            assert plain is not None
            makers[index] = partial(form, plain)
        return replace(beneath, makers=tuple(makers))


Form = Callable[[Maker, Call, ir.Value], ir.Value | None]


def _relu(plain: Maker, c: Call, g: ir.Value) -> ir.Value:
    return passed_inside(c, g, 0.0, None)


def _clip(plain: Maker, c: Call, g: ir.Value) -> ir.Value | None:
    bounds = rectifier_bounds(c.node)
    return plain(c, g) if bounds is None else passed_inside(c, g, *bounds)


def _one_minus(c: Call, value: ir.Value) -> ir.Value:
    return scaled(c, value, -1.0, 1.0)


def _sigmoid(plain: Maker, c: Call, g: ir.Value) -> ir.Value | None:
    if not is_aligned(c.y):
        return plain(c, g)
    return c.op("Mul", g, c.op("Mul", c.y, _one_minus(c, c.y)))


def _hard_swish(plain: Maker, c: Call, g: ir.Value) -> ir.Value | None:
    """With h = clip(x / 6 + 1 / 2, 0, 1): dy = x / 6 where 0 < h < 1, plus h."""
    if not (is_aligned(c.y) and c.walk.finite):
        return plain(c, g)
    x = c.x(0)
    gate = c.op("HardSigmoid", scaled(c, x, 1.0), alpha=1.0 / 6.0, beta=0.5)
    rise = scaled(c, c.op("Mul", x, inside(c, gate, 0.0, 1.0)), 1.0 / 6.0)
    return c.op("Mul", g, c.op("Add", rise, gate))


def _factor(index: int, plain: Maker, c: Call, g: ir.Value) -> ir.Value | None:
    return factor(c, g, index, _one_minus) if is_aligned(c.y) else plain(c, g)


def _max_pool(plain: Maker, c: Call, g: ir.Value) -> ir.Value:
    g = masked_early(c, g, passed_inside)
    w = max_windows(c)
    dx = separated_max(c, g, w)
    return to_maxima(c, g, w) if dx is None else dx


def _global_average_pool(plain: Maker, c: Call, g: ir.Value) -> ir.Value | None:
    space = [c.static(c.x(0), i) for i in range(2, c.rank(c.x(0)))]
    if not (is_aligned(c.y) and all(space)):
        return plain(c, g)
    share = 1.0 / float(np.prod([n or 0 for n in space]))
    return expand_space(c, c.split_t(scaled(c, c.merge_t(g, c.y), share), c.y, merged=True))


_FORMS: dict[str, tuple[Form, ...]] = {
    "Relu": (_relu,),
    "Clip": (_clip,),
    "Sigmoid": (_sigmoid,),
    "HardSwish": (_hard_swish,),
    "Mul": (partial(_factor, 0), partial(_factor, 1)),
    "MaxPool": (_max_pool,),
    "GlobalAveragePool": (_global_average_pool,),
}
