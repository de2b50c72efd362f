"""Sequences: every model here is linear, so that <g, f(v)> must equal <gradient, v>."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxcam.errors import NoGradientError

from .finite import Case, differentiate, session

OPERATORS = (
    "SequenceConstruct",
    "SplitToSequence",
    "SequenceInsert",
    "SequenceAt",
    "SequenceErase",
    "ConcatFromSequence",
    "Optional",
    "OptionalGetElement",
)
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\ngraph ({inputs}) => (float y0) {{ {body} }}'


def model(body: str, symbolic: bool, *fed: str) -> onnx.ModelProto:
    """Return the nodes of ``body``, which reads ``x0[7, 3]`` and ``x1[2, 3]``."""
    shapes = ["N, K", "M, K"] if symbolic else ["7, 3", "2, 3"]
    inputs = [f"float[{s}] x{i}" for i, s in enumerate(shapes)]
    inputs += [{"p": "int64 p", "sizes": "int64[3] sizes"}[name] for name in fed]
    parsed = onnx.parser.parse_model(HEAD.format(inputs=", ".join(inputs), body=body))
    parsed.graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(parsed, data_prop=True)


def number(name: str, value: int) -> str:
    return f"{name} = Constant<value = int64 {{{value}}}>()\n"


def vector(name: str, *values: int) -> str:
    joined = ", ".join(map(str, values))
    return f"{name} = Constant<value = int64[{len(values)}] {{{joined}}}>()\n"


AT = "y0 = SequenceAt(s, i)"
ONE = {
    "unbind": number("i", 3) + f"s = SplitToSequence<keepdims=0>(x0) {AT}",
    "unbind-last": number("i", -2) + f"s = SplitToSequence<axis=-1, keepdims=0>(x0) {AT}",
    "ones": number("i", -1) + f"s = SplitToSequence(x0) {AT}",
    "equal": number("n", 3) + number("i", 1) + f"s = SplitToSequence(x0, n) {AT}",
    "rest": number("n", 3) + number("i", -1) + f"s = SplitToSequence(x0, n) {AT}",
    "sizes": vector("n", 4, 1, 2) + number("i", -1) + f"s = SplitToSequence(x0, n) {AT}",
    "joined": "s = SplitToSequence(x0) y0 = ConcatFromSequence<axis=0>(s)",
    "stacked": "s = SplitToSequence<keepdims=0>(x0) y0 = ConcatFromSequence<axis=0,new_axis=1>(s)",
    "several": vector("n", 4, 1, 2)
    + number("i", 0)
    + number("j", 2)
    + "s = SplitToSequence(x0, n) a = SequenceAt(s, i) b = SequenceAt(s, j) "
    + "y0 = Concat<axis=0>(b, a, b)",
    "optional": "s = SplitToSequence(x0) o = Optional(s) h = OptionalGetElement(o) "
    + "i = Identity(h) y0 = ConcatFromSequence<axis=0>(i)",
    "held": "o = Optional(x0) h = OptionalGetElement(o) y0 = Add(h, x0)",
    "squared": "s = SequenceConstruct(x0, x0) y0 = ConcatFromSequence<axis=1>(s)",
}
TWO = {
    "held": number("i", 1)
    + "s = SequenceConstruct(x0, x1) o = Optional(s) h = OptionalGetElement(o)"
    + "a = SequenceAt(h, i) y0 = Concat<axis=0>(a, x0)",
    "at": number("i", -2)
    + number("j", 0)
    + "s = SequenceConstruct(x0, x1, x0) a = SequenceAt(s, i) b = SequenceAt(s, j)"
    + "y0 = Concat<axis=0>(a, b, a)",
    "concat": "s = SequenceConstruct(x1, x0, x1) y0 = ConcatFromSequence<axis=0>(s)",
    "stack": vector("r", 0, 3)
    + "t = Gather(x0, r) s = SequenceConstruct(x1, t) y0 = ConcatFromSequence<axis=-1,new_axis=1>(s)",
    "inserted": number("i", 0)
    + "e = SequenceEmpty() a = SequenceInsert(e, x1) b = SequenceInsert(a, x0, i)"
    + "s = SequenceInsert(b, x1) y0 = ConcatFromSequence<axis=0>(s)",
    "erased": number("i", 1)
    + "e = SequenceConstruct(x1, x0, x0, x1) a = SequenceErase(e, i) s = SequenceErase(a)"
    + "y0 = ConcatFromSequence<axis=0>(s)",
}


def check(proto: onnx.ModelProto, wrt: tuple[int, ...], given: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(5)
    x = {f"x{i}": rng.normal(size=[(7, 3), (2, 3)][i]).astype(np.float32) for i in (0, 1)}
    asked = {i.name for i in proto.graph.input}
    feeds = {k: v for k, v in {**x, **given}.items() if k in asked}
    (y,) = session(proto.SerializeToString()).run(["y0"], feeds)
    seed = rng.normal(size=(3, *y.shape)).astype(np.float32)
    case = Case("Identity", [], wrt=wrt, opset=17)
    names = [f"gradient_x{i}" for i in wrt]
    gradient = session(differentiate(proto, case, y.ndim)).run(names, {**feeds, "seed0": seed})
    expected = np.tensordot(seed, y, y.ndim)
    found = sum(np.tensordot(g, x[f"x{i}"], 2) for i, g in zip(wrt, gradient, strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("name", ONE)
def test_reading_parts_of_a_tensor(name: str, symbolic: bool) -> None:
    check(model(ONE[name], symbolic), (0,), {})


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("name", TWO)
def test_reading_what_was_put_together(name: str, symbolic: bool) -> None:
    check(model(TWO[name], symbolic), (0, 1), {})


@pytest.mark.parametrize("position", [0, 2, -1, -3])
def test_which_part_is_read_may_be_known_to_the_run_alone(position: int) -> None:
    given = {"p": np.array(position), "sizes": np.array([2, 1, 4])}
    body = "s = SplitToSequence(x0, sizes) y0 = SequenceAt(s, p)"
    check(model(body, True, "p", "sizes"), (0,), given)
    body = number("n", 3) + "s = SplitToSequence(x0, n) y0 = SequenceAt(s, p)"
    check(model(body, True, "p"), (0,), given)


REFUSED = {
    "positions must be known": "s = SequenceConstruct(x0, x0) y0 = SequenceAt(s, p)",
    "positions must": "e = SequenceConstruct(x0) s = SequenceInsert(e, x0, p)"
    "y0 = ConcatFromSequence<axis=0>(s)",
    "along another axis": "s = SplitToSequence<keepdims=0>(x0)"
    "y0 = ConcatFromSequence<axis=1,new_axis=1>(s)",
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses_what_only_the_run_knows(reason: str) -> None:
    proto = model(REFUSED[reason], False, "p")
    with pytest.raises(NoGradientError, match=reason):
        differentiate(proto, Case("Identity", [], opset=17), 2)
