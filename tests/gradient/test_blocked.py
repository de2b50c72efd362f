"""One cotangent, without its axis and in blocks, equals what the general form gives."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxcam import add_gradients
from onnxcam.errors import EngineError

from .cases import CASES, SWEPT
from .finite import Case, build, session
from .forms import FORMS, close, gradient, pulled, single
from .graphs import check_graph, model

OFTEN = {id(case) for case in SWEPT}  # those that know their shapes too
ON_IMAGES = [
    (case, dynamic)
    for case in CASES
    for dynamic in (False, True)
    if not case.domain and 0 in case.wrt and np.ndim(case.inputs[0]) > 2
    if (case.dynamic if dynamic else id(case) in OFTEN or not case.dynamic)
]


@pytest.mark.parametrize(("case", "dynamic"), ON_IMAGES, ids=str)
def test_every_rule_on_images(case: Case, dynamic: bool) -> None:
    proto = build(case, np.float32, dynamic)
    feeds = {f"x{i}": np.asarray(case.inputs[i], np.float32) for i in case.wrt} | case.given
    shape = proto.graph.output[0].type.tensor_type.shape
    if not shape.dim:  # onnx does not infer it, and a model has to say its outputs' rank
        [y] = session(proto.SerializeToString()).run(["y0"], feeds)
        shape.SetInParent()
        for axis in range(np.ndim(y)):
            shape.dim.add().dim_param = f"y{axis}"
    expected = gradient(proto, feeds)
    for form in ({"T": 1}, {"blocked": True}):
        close(gradient(proto, feeds, **form), expected)


RECTIFIED = """
net (double[N,2,5,7] x0) => (D y0)
<double low = {{0}}, double high = {{1}}> {{
    p = Relu(x0)
    r = Neg(x0)
    q = Relu(r)
    a = {before}
    b = MaxPool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,0]>(a)
    y0 = {after}
}}
"""


@pytest.mark.parametrize("before", ["Relu(x0)", "Clip(x0, low, high)", "Concat<axis=1>(p, q)"])
@pytest.mark.parametrize("after", ["Mul(b, b)", "ReduceMean<axes=[2,3]>(b)"])
def test_a_rectifier_before_a_pool(before: str, after: str) -> None:
    x = np.random.default_rng(2).normal(size=(2, 2, 5, 7))
    check_graph(model(RECTIFIED.format(before=before, after=after)), "y0", ["x0"], {"x0": x})


def test_a_rectifier_that_something_else_reads_too() -> None:
    text = """
    net (double[N,2,5,7] x0) => (D y0) {
        a = Relu(x0)
        b = MaxPool<kernel_shape=[3,3], strides=[2,2]>(a)
        c = ReduceMean<axes=[2,3]>(a)
        y0 = Mul(b, c)
    }
    """
    x = np.random.default_rng(2).normal(size=(2, 2, 5, 7))
    check_graph(model(text), "y0", ["x0"], {"x0": x})


def test_policies_at_a_rectifier_before_a_pool() -> None:
    text = """
    net (double[1,1,1,5] x0) => (D y0) {
        a = Relu(x0)
        y0 = MaxPool<kernel_shape=[1,2], strides=[1,1]>(a)
    }
    """
    proto = model(text)
    x = np.array([[[[1.0, 3.0, 2.0, -1.0, -2.0]]]])
    seed = np.array([[[[[2.0, -3.0, 5.0, 7.0]]]]])
    # Windows give to places 1, 1, 2 and 3 (0 is the maximum of the last, where Relu is flat).
    for policy, expected in (
        ("standard", [0.0, -1.0, 5.0, 0.0, 0.0]),
        ("guided", [0.0, 0.0, 5.0, 0.0, 0.0]),
        ("deconvnet", [0.0, 0.0, 5.0, 7.0, 0.0]),
    ):
        made = add_gradients(proto, "y0", "x0", policy=policy)  # type: ignore[arg-type]
        feeds = {"x0": x, "seed:y0": seed}
        [dx] = session(made.SerializeToString()).run(["gradient:x0"], feeds)
        np.testing.assert_array_equal(np.asarray(dx).ravel(), expected)


def test_the_number_of_cotangents_can_be_fixed() -> None:
    proto = model("net (double[N,2,5,7] x0) => (D y0) { y0 = Relu(x0) }")
    for rows, form in ((3, {"T": 3}), (1, {"T": 1}), (1, {"blocked": True})):
        made = add_gradients(proto, "y0", "x0", **form)  # type: ignore[arg-type]
        for value in (made.graph.input[-1], made.graph.output[-1]):
            assert value.type.tensor_type.shape.dim[0].dim_value == rows


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"T": 0}, "T 0: give the number"),
        ({"T": 1.5}, "T 1.5: give the number"),
        ({"T": True}, "T True: give the number"),
        ({"T": 10**20}, "give the number"),
        ({"T": 2, "blocked": True}, "the blocked layout takes one cotangent"),
        ({"T": 2, "engine": "ort"}, "engine 'ort' takes one cotangent"),
        ({"blocked": True, "engine": "ort"}, "engine 'ort' has no blocked layout"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(form: dict[str, object], message: str) -> None:
    proto = model("net (double[N,2,5,7] x0) => (D y0) { y0 = Relu(x0) }")
    with pytest.raises(EngineError, match=message):
        add_gradients(proto, "y0", "x0", **form)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [{}, {"T": 1}, {"blocked": True}])
def test_cotangents_of_another_batch_are_refused(form: dict[str, object]) -> None:
    """Not broadcast, nor read beyond their end."""
    rng = np.random.default_rng(5)
    weight = rng.normal(size=(16, 16, 1, 1)).astype(np.float32)
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Conv", ["x0", "w"], ["a"]),
                helper.make_node("Relu", ["a"], ["b"]),
                helper.make_node("Conv", ["b", "w"], ["c"]),
                helper.make_node("Add", ["c", "b"], ["y0"]),
            ],
            "residual",
            [helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["N", 16, 5, 5])],
            [helper.make_tensor_value_info("y0", TensorProto.FLOAT, ["N", 16, 5, 5])],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    runtime = session(add_gradients(proto, "y0", "x0", **form).SerializeToString())  # type: ignore[arg-type]
    x = rng.normal(size=(3, 16, 5, 5)).astype(np.float32)
    runtime.run(None, {"x0": x, "seed:y0": x[None]})
    with pytest.raises(Exception, match="check_seed_shape"):
        runtime.run(None, {"x0": x, "seed:y0": x[None, :1]})


def test_cotangents_of_turned_axes_are_refused() -> None:
    """As many elements in another order."""
    proto = single("net (float[N,4,H,W] x0) => (float[N,4,H,W] y0) { y0 = Relu(x0) }")
    runtime = session(add_gradients(proto, "y0", "x0").SerializeToString())
    x = np.ones((2, 4, 3, 5), np.float32)
    runtime.run(None, {"x0": x, "seed:y0": x[None]})
    for seed in (x.transpose(2, 1, 0, 3), x.transpose(0, 1, 3, 2), x.reshape(1, 4, 6, 5)):
        with pytest.raises(Exception, match="check_seed_shape"):
            runtime.run(None, {"x0": x, "seed:y0": seed[None]})


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("joined", ["Identity(p)", "Concat<axis=1>(p, q)"])
def test_the_bound_of_a_clip_before_a_pool(form: dict[str, object], joined: str) -> None:
    """Elements below it have its value, in the padding's neighbourhood too."""
    proto = single(
        f"""
        net (float[1,4,4,4] x0) => (float[1,A,2,2] y0) <float low = {{0}}> {{
            p = Clip(x0, low)
            q = Clip(x0, low)
            a = {joined}
            y0 = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0]>(a)
        }}
        """
    )
    if joined.startswith("Identity"):
        proto.graph.node[0].output[0] = "a"
        del proto.graph.node[1:3]
    x = -np.abs(np.random.default_rng(0).normal(size=(1, 4, 4, 4))).astype(np.float32)
    assert pulled(proto, "low", x, **form).item() == (32.0 if "Concat" in joined else 16.0)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(
    "node", ["MaxPool<kernel_shape=[3,3], strides=[2,2]>(x0)", "Clip(x0, low)"]
)
def test_infinite_activations_spoil_no_others(form: dict[str, object], node: str) -> None:
    """As where a mask of -inf lies before a pool."""
    proto = single(f"net (float[1,4,5,5] x0) => (float[1,4,H,W] y0) {{ y0 = {node} }}")
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(-np.inf), "low"))
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 5)).astype(np.float32)
    expected = pulled(proto, "x0", x)
    x[0, 0, 0, 0] = -np.inf
    found = pulled(proto, "x0", x, **form)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[0, 0, 1:], expected[0, 0, 1:])


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_large_and_small_activations(form: dict[str, object]) -> None:
    silu = single(
        "net (float[N,4,H,W] x0) => (float[N,4,H,W] y0) { s = Sigmoid(x0) y0 = Mul(x0, s) }"
    )
    x = np.tile(np.array([2.0**24, 1e8, 1e3], np.float32).reshape(1, 1, 1, 3), (1, 4, 1, 1))
    np.testing.assert_array_equal(pulled(silu, "x0", x, **form), np.ones((1, *x.shape)))
    pool = single(
        """
        net (float[1,4,1,4] x0) => (float[1,4,1,3] y0) {
            r = Relu(x0)
            y0 = MaxPool<kernel_shape=[1,2]>(r)
        }
        """
    )
    row = np.array([1, 3, 2, 4], np.float32)
    for scale in (1e-35, 1e-20, 1.0, 1e20, 8e37):
        x = np.tile((row * np.float32(scale)).reshape(1, 1, 1, 4), (1, 4, 1, 1))
        found = pulled(pool, "x0", x, **form)
        np.testing.assert_array_equal(found[0, 0, 0, 0], [0, 2, 0, 1])


STRIPS = {
    "a strip before an average": "c = Conv(x0, tall) b = Sigmoid(c) m = Mul(a, b)",
    "a strip and a point": "c = Conv(x0, tall) p = GlobalAveragePool(c) m = Mul(c, p)",
    "two strips": "c = Conv(x0, tall) d = Conv(x0, wide) m = Mul(c, d)",
    "a point": "c = Conv(x0, tall) p = GlobalAveragePool(c) m = Mul(p, a)",
    "its square": "p = GlobalAveragePool(a) q = Mul(p, p) m = Mul(q, a)",
    "a sum": "p = GlobalAveragePool(a) m = Add(p, a)",
}


@pytest.mark.parametrize("batch", ["1", "N"])
@pytest.mark.parametrize("name", STRIPS)
def test_gates_that_are_strips_or_points(name: str, batch: str) -> None:
    """What is spread to an image's size is spread to that of the product."""
    proto = single(
        f"""
        net (float[{batch},16,4,5] x0) => (float[{batch},16,1,1] y0) {{
            a = Conv<pads=[1,1,1,1]>(x0, w)
            {STRIPS[name]}
            y0 = GlobalAveragePool(m)
        }}
        """
    )
    rng = np.random.default_rng(4)
    for key, size in {"w": (3, 3), "tall": (4, 1), "wide": (1, 5)}.items():
        if any(key in n.input for n in proto.graph.node):
            weight = rng.normal(size=(16, 16, *size)).astype(np.float32) / 4
            proto.graph.initializer.append(numpy_helper.from_array(weight, key))
    x = rng.normal(size=(1, 16, 4, 5)).astype(np.float32)
    values = ["x0", *(v for n in proto.graph.node[:-1] for v in n.output)]
    for value in values:
        if any(value in n.input for n in proto.graph.node):
            close(pulled(proto, value, x, blocked=True), pulled(proto, value, x))


BOUNDS = [
    *((0.0, 6.0), (-1.0, 1.0), (-6.0, 0.0), (0.0, 1.0), (-3.0, 2.5), (0.1, 0.7), (-0.7, -0.1)),
    *((-1e3, 1e-3), (5.0, 1e4), (-8.0, 8.0), (0.0, None), (0.3, None), (-2.0, None)),
    *((None, 0.0), (None, 6.0), (None, -0.3)),
]


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("aligned", [True, False])
def test_masks_next_to_their_bounds(
    bounds: tuple[float | None, float | None], aligned: bool
) -> None:
    """In blocks and where the channels do not fill them, of all numbers next to the bounds."""
    known = [np.float32(b) for b in bounds if b is not None]
    x = [np.float32(s) for s in (-1e30, -9, -1, -1e-4, -1e-28, 0, 1e-28, 1e-4, 0.5, 1, 9, 1e30)]
    for bound in known:
        up, down = (np.nextafter(bound, np.float32(to)) for to in (np.inf, -np.inf))
        x += [n for n in (bound, up, down) if n == 0 or abs(n) > 1e-28]
    x = np.unique(np.array(x, np.float32))
    channels = 16 if aligned else 6
    image = np.tile(x, (1, channels, 1, 1))
    proto = single(
        f"""
        net (float[1,{channels},1,{len(x)}] x0) => (float[1,{channels},1,{len(x)}] y0) {{
            a = Conv<group={channels}>(x0, one)
            b = Clip(a, low, high)
            y0 = Conv<group={channels}>(b, one)
        }}
        """
    )
    stored = {"one": np.ones((channels, 1, 1, 1), np.float32)}
    for place, (name, bound) in enumerate(zip(("low", "high"), bounds, strict=True), 1):
        if bound is None:
            proto.graph.node[1].input[place] = ""
        else:
            stored[name] = np.float32(bound)
    proto.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in stored.items())
    inside = np.ones(len(x), bool)
    if bounds[0] is not None:
        inside &= x > known[0]
    if bounds[1] is not None:
        inside &= x < known[-1]
    found = pulled(proto, "x0", image, blocked=True)
    np.testing.assert_array_equal(found, np.broadcast_to(inside, found.shape))
    if aligned:  # by convolutions, where single precision has the distance of the bounds
        made = add_gradients(proto, "y0", "x0", blocked=True)
        width = float(known[-1]) - float(known[0])
        compared = not {n.op_type for n in made.graph.node}.isdisjoint({"Greater", "Less"})
        assert compared == (float(np.float32(width)) != width)
