"""If, Loop and Scan: gradients through inner graphs, against differences in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxcam.errors import ModelError, NoGradientError
from onnxcam.gradient.differentiate import add_gradients
from onnxcam.model.prepare import Prepared

from .finite import session
from .graphs import check_graph, model

RNG = np.random.default_rng(6)
N, S = 3, 4
X, W, V = RNG.normal(size=(N, 2)), RNG.normal(size=(2, 2)), RNG.normal(size=2)
XS = RNG.normal(size=(S, N, 2))
YES, NO = np.array(True), np.array(False)


def words(body: str) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in body).split())


IFS = {
    "each branch reads another value": """
        y = If (c) <
            then_branch = t () => (D a) { e = Exp (x)  a = Tanh (e) },
            else_branch = f () => (D b) { b = MatMul (x, w) }>""",
    "only one branch reads anything": """
        s = ReduceSum <keepdims = 0> (x)
        z = If (c) <
            then_branch = t () => (D a) { a = Mul (s, v) },
            else_branch = f () => (D b) { b = Identity (k) }>
        m = MatMul (x, w)  y = Add (m, z)""",
    "an outer value is handed out": """
        p = MatMul (x, w)
        z = If (c) <
            then_branch = t () => (D a) { a = Identity (p) },
            else_branch = f () => (D b) { b = Identity (x) }>
        y = Mul (z, v)""",
    "nested": """
        p = MatMul (x, w)
        n = Not (c)
        y = If (c) <
            then_branch = t () => (D a) {
                q = Sin (p)
                a = If (n) <
                    then_branch = tt () => (D aa) { aa = Mul (q, p) },
                    else_branch = tf () => (D ab) { ab = Mul (q, v) }>
            },
            else_branch = f () => (D b) { r = Mul (x, v)  b = Add (r, p) }>""",
    "several outputs, one not read": """
        h, i, z = If (c) <
            then_branch = t () => (D a0, int64 a1, D a2) {
                a0 = Mul (x, v)  a1 = Identity (one)  a2 = Tanh (a0)
            },
            else_branch = f () => (D b0, int64 b1, D b2) {
                b0 = MatMul (x, w)  b1 = Identity (two)  b2 = Sin (b0)
            }>
        f = Cast <to = 11> (i)
        y = Mul (h, f)""",
    "stored constants in both branches": """
        y = If (c) <
            then_branch = t () => (D a) <double[2] u = {1.5, -2}> { a = Mul (x, u) },
            else_branch = f () => (D b) <double[2] u = {0.5, 3}> { e = Mul (x, u)  b = Exp (e) }>""",
}


def conditional(body: str, opset: int = 17) -> onnx.ModelProto:
    return model(
        f"""graph (double[N,2] x, double[2,2] w, double[2] v, bool c) => (D y)
        <double[2] k = {{1, 2}}, int64 one = {{1}}, int64 two = {{2}}> {{ {body} }}""",
        opset,
    )


@pytest.mark.parametrize("condition", [YES, NO], ids=str)
@pytest.mark.parametrize("name", IFS)
def test_if(name: str, condition: np.ndarray) -> None:
    feeds = {"x": X, "w": W, "v": V, "c": condition}
    proto = conditional(IFS[name])
    check_graph(proto, "y", [n for n in ("x", "w", "v") if n in words(IFS[name])], feeds)


SCANS = {
    "a recurrence": """
        z, ys = Scan (x, xs) <num_scan_inputs = 1, body = b (D s, D e) => (D t, D o) {
            m = MatMul (s, w)  a = Add (m, e)  t = Tanh (a)  q = Sin (t)  o = Mul (q, s)
        }>
        y = Add (ys, z)""",
    "the last state alone": """
        y, ys = Scan (x, xs) <num_scan_inputs = 1, body = b (D s, D e) => (D t, D o) {
            m = MatMul (s, w)  p = Mul (m, e)  t = Sin (p)  o = Exp (s)
        }>""",
    "the stacked outputs alone": """
        z, y, unread = Scan (x, xs) <num_scan_inputs = 1, body = b (D s, D e) => (D t, D o, D r) {
            m = Mul (s, v)  t = Mul (m, e)  o = Mul (t, t)  r = Neg (t)
        }>""",
    "the body is linear": """
        z, ys = Scan (x, xs) <num_scan_inputs = 1, body = b (D s, D e) => (D t, D o) {
            t = Add (s, e)  o = Neg (t)
        }>
        y = Add (ys, z)""",
    "no states": """
        y = Scan (xs) <num_scan_inputs = 1, body = b (D e) => (D o) {
            m = MatMul (e, w)  o = Exp (m)
        }>""",
    "states of which one is an integer, one a constant, one overwritten": """
        i, k, l, y = Scan (zero, v, x, xs) <num_scan_inputs = 1,
            body = b (int64 i0, D k0, D l0, D e) => (int64 i1, D k1, D l1, D o) {
                i1 = Add (i0, one)  f = Cast <to = 11> (i1)  k1 = Identity (k0)
                l1 = Mul (e, k0)  p = Mul (l0, e)  o = Mul (p, f)
            }>""",
    "axes and directions": """
        t1 = Transpose <perm = [1, 0, 2]> (xs)
        t2 = Transpose <perm = [1, 2, 0]> (xs)
        z, a1, a2, a3 = Scan (x, t1, t2, xs) <num_scan_inputs = 3, scan_input_axes = [1, -1, 0],
            scan_input_directions = [1, 0, 1], scan_output_axes = [1, -1, 0],
            scan_output_directions = [0, 1, 1],
            body = b (D s, D e1, D e2, D e3) => (D r, D o1, D o2, D o3) {
                p = Mul (s, e1)  q = Sin (e2)  o1 = Mul (p, q)  r = MatMul (o1, w)
                o2 = Mul (e3, e1)  o3 = Add (r, e2)
            }>
        b1 = Transpose <perm = [1, 0, 2]> (a1)
        b2 = Transpose <perm = [2, 0, 1]> (a2)
        c1 = Sin (b1)  c2 = Mul (b2, b2)  c3 = Mul (a3, c1)
        y = Sum (c1, c2, c3, z)""",
    "one value as state, element and captured": """
        m = MatMul (xs, w)
        first = Gather (m, zero)
        z, ys = Scan (first, m) <num_scan_inputs = 1, body = b (D s, D e) => (D t, D o) {
            u = Mul (s, e)  t = Mul (u, first)  o = Add (t, e)
        }>
        y = Mul (ys, z)""",
    "a Scan in a Scan": """
        z, ys = Scan (x, xs) <num_scan_inputs = 1, body = b (D s, D e) => (D t, D o) {
            t, o = Scan (s, xs) <num_scan_inputs = 1, body = bb (D s2, D e2) => (D t2, D o2) {
                p = Mul (s2, e)  q = Add (p, e2)  t2 = Sin (q)  o2 = Mul (t2, v)
            }>
        }>
        r = ReduceSum <keepdims = 0> (ys, first_axis)
        y = Mul (r, z)""",
    "an If in a Scan": """
        i, z = Scan (zero, x, xs) <num_scan_inputs = 1,
            body = b (int64 i0, D s, D e) => (int64 i1, D t) {
                i1 = Add (i0, one)  odd = Mod (i1, two)  c = Cast <to = 9> (odd)
                t = If (c) <
                    then_branch = tb () => (D a) { p = Mul (s, e)  a = Sin (p) },
                    else_branch = fb () => (D d) { d = MatMul (s, w) }>
            }>
        y = Mul (z, v)""",
    "a Scan in an If": """
        s1 = ReduceSum <keepdims = 0> (x)
        big = Greater (s1, huge)
        y = If (big) <
            then_branch = tb () => (D a) { a = Identity (x) },
            else_branch = fb () => (D d) {
                d, os = Scan (x, xs) <num_scan_inputs = 1, body = b (D s, D e) => (D t, D o) {
                    p = Mul (s, e)  t = MatMul (p, w)  o = Neg (t)
                }>
            }>""",
}
CONSTANTS = (
    "<int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64[1] first_axis = {0}, "
    "double huge = {1000}>"
)


def scanning(body: str, opset: int = 17) -> onnx.ModelProto:
    text = (
        f"graph (double[N,2] x, double[S,N,2] xs, double[2,2] w, double[2] v) => (D y) {CONSTANTS}"
    )
    return model(f"{text} {{ {body} }}", opset)


@pytest.mark.parametrize("name", SCANS)
def test_scan(name: str) -> None:
    feeds = {"x": X, "xs": XS, "w": W, "v": V}
    body = SCANS[name]
    check_graph(scanning(body), "y", [n for n in feeds if n in words(body)], feeds)


LOOPS = {
    "a state and stacked outputs": """
        z, ys = Loop (n, yes, x) <body = b (int64 i, bool c, D s) => (bool d, D t, double[3,2] o) {
            d = Identity (c)  f = Cast <to = 11> (i)  m = MatMul (s, w)  a = Add (m, f)
            t = Sin (a)  o = Mul (t, s)
        }>
        r = ReduceSum <keepdims = 0> (ys, first_axis)
        y = Add (r, z)""",
    "no condition to begin with": """
        z = Loop (n, , x) <body = b (int64 i, bool c, D s) => (bool d, D t) {
            d = Constant <value = bool {1}> ()  m = Mul (s, v)  t = Exp (m)
        }>
        y = Mul (z, z)""",
    "a condition of constants": """
        z = Loop (n, yes, x) <body = b (int64 i, bool c, D s) => (bool d, D t) {
            e = Cast <to = 9> (two)  d = And (c, e)  m = Mul (s, v)  t = Exp (m)
        }>
        y = Mul (z, z)""",
    "a trip count from a shape": """
        shape = Shape (xs)
        length = Gather (shape, first_axis)
        z = Loop (length, yes, x) <body = b (int64 i, bool c, D s) => (bool d, D t) {
            d = Identity (c)  e = Gather (xs, i)  m = Mul (s, e)  t = Tanh (m)
        }>
        y = Mul (z, v)""",
    "a stored trip count": """
        y = Loop (two, yes, x) <body = b (int64 i, bool c, D s) => (bool d, D t) {
            d = Identity (c)  m = MatMul (s, w)  t = Tanh (m)
        }>""",
    "no states": """
        ys = Loop (three, yes) <body = b (int64 i, bool c) => (bool d, D o) {
            d = Identity (c)  f = Cast <to = 11> (i)  p = Mul (x, f)  o = Sin (p)
        }>
        r = ReduceSum <keepdims = 0> (ys, first_axis)
        y = Mul (r, v)""",
    "a Loop in a Loop": """
        z = Loop (n, yes, x) <body = b (int64 i, bool c, D s) => (bool d, D t) {
            d = Identity (c)
            u = Loop (i, c, s) <body = bb (int64 i2, bool c2, D s2) => (bool d2, D t2) {
                d2 = Identity (c2)  p = Mul (s2, s)  q = Mul (p, v)  t2 = Sin (q)
            }>
            t = Add (u, x)
        }>
        m = MatMul (z, w)  y = Exp (m)""",
    "several states, two exchanged": """
        k, l, j = Loop (n, yes, x, x, zero) <
            body = b (int64 i, bool c, D s0, D s1, int64 j0) => (bool d, D t0, D t1, int64 j1) {
                d = Identity (c)  j1 = Add (j0, i)  f = Cast <to = 11> (j1)
                p = Mul (s1, v)  q = Add (p, f)  t0 = Sin (q)  t1 = Identity (s0)
            }>
        y = Mul (k, l)""",
}
NUMBERS = (
    "<int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 three = {3}, "
    "int64[1] first_axis = {0}, bool yes = {1}>"
)


def looping(body: str, opset: int = 17) -> onnx.ModelProto:
    inputs = "double[N,2] x, double[S,N,2] xs, double[2,2] w, double[2] v, int64 n"
    return model(f"graph ({inputs}) => (double[P,2] y) {NUMBERS} {{ {body} }}", opset)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("name", LOOPS)
def test_loop(name: str, count: int) -> None:
    body = LOOPS[name]
    if count != 3 and "n" not in words(body):
        pytest.skip("its count does not depend on the run")
    feeds = {"x": X, "xs": XS, "w": W, "v": V, "n": np.array(count)}
    to = [n for n in ("x", "xs", "w", "v") if n in words(body)]
    check_graph(looping(body), "y", to, feeds)


@pytest.mark.parametrize("condition", [YES, NO], ids=str)
def test_a_loop_whose_condition_the_run_brings(condition: np.ndarray) -> None:
    proto = model("""
        graph (double[N,2] x, bool go) => (double[N,2] y) <int64 three = {3}> {
            y = Loop (three, go, x) <body = b (int64 i, bool c, D s) => (bool d, D t) {
                d = Identity (c)  t = Sin (s)
            }>
        }""")
    check_graph(proto, "y", ["x"], {"x": X, "go": condition})


REFUSED = {
    "a condition that an iteration computes": (
        """y = Loop (n, yes, x) <body = b (int64 i, bool c, D s) => (bool d, D t) {
            t = Mul (s, v)  u = ReduceSum <keepdims = 0> (t)  d = Less (u, s00)
        }>""",
        r"Loop \(.*opset 17\) cannot .* how often it repeats depends on what it computes",
    ),
    "no trip count": (
        """y = Loop (, yes, x) <body = b (int64 i, bool c, D s) => (bool d, D t) {
            d = Identity (c)  t = Mul (s, v)
        }>""",
        r"Loop \(.*\) cannot .* no trip count",
    ),
    "a state that grows": (
        """y = Loop (n, yes, k) <body = b (int64 i, bool c, D s) => (bool d, D t) {
            d = Identity (c)  t = Concat <axis = 0> (s, k)
        }>""",
        r"Loop \(.*\) cannot .* its state 'k' changes its shape",
    ),
    "a state whose rank grows": (
        """z = Loop (two, yes, k) <body = b (int64 i, bool c, D s) => (bool d, D t) {
            d = Identity (c)  t = Unsqueeze (s, first_axis)
        }>
        y = Identity (z)""",
        r"Loop \(.*\) cannot .* its state 'k' changes its shape",
    ),
    "a sequence": (
        """e = SequenceEmpty <dtype = 11> ()
        q = Loop (n, yes, e) <
            body = b (int64 i, bool c, seq(double[N,2]) s) => (bool d, seq(double[N,2]) t) {
                d = Identity (c)  t = SequenceInsert (s, x)
            }>
        y = ConcatFromSequence <axis = 0> (q)""",
        "Sequence",
    ),
    "a Loop inside that is refused": (
        """z = Scan (x, x) <num_scan_inputs = 1, body = b (D s, D e) => (D t) {
            [inside] t = Loop (n, yes, s) <body = bb (int64 i, bool c, D s2) => (bool d, D t2) {
                d = Less (i, two)  t2 = Sin (s2)
            }>
        }>
        y = Identity (z)""",
        r"Loop \(node 'inside', opset 17\) cannot .* how often it repeats",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    body, message = REFUSED[name]
    inputs = "double[N,2] x, double[1,2] k, double[2] v, double s00, int64 n"
    proto = model(f"graph ({inputs}) => (double[P,2] y) {NUMBERS} {{ {body} }}")
    with pytest.raises(NoGradientError, match=message):
        add_gradients(proto, "y", ["k" if "(two, yes, k)" in body or "yes, k)" in body else "x"])


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 15, 16, 18, 19, 21, 22, 24, 25, 26])
def test_every_opset(opset: int) -> None:
    """Models of opsets before 13 are lifted, their inner graphs too."""
    proto = model(
        """graph (double[N,2] x, double[S,N,2] xs, double[2] v, bool c) => (double[N,2] y)
        <int64 two = {2}, bool yes = {1}> {
            p = If (c) <
                then_branch = t () => (D a) { a = Softmax <axis = -1> (x) },
                else_branch = f () => (D b) { b = Mul (x, v) }>
            q = Scan (p, xs) <num_scan_inputs = 1, body = b1 (D s1, D e) => (D t1) {
                m1 = Mul (s1, e)  t1 = Tanh (m1)
            }>
            y = Loop (two, yes, q) <body = b2 (int64 i, bool c2, D s2) => (bool d, D t2) {
                d = Identity (c2)  m2 = Mul (s2, v)  t2 = Exp (m2)
            }>
        }""",
        opset,
    )
    for condition in (YES, NO):
        feeds = {"x": X, "xs": XS, "v": V, "c": condition}
        changed = check_graph(proto, "y", ["x", "xs", "v"], feeds)
    assert changed.opset_import[0].version == max(opset, 13)


def test_the_derivative_of_a_derivative() -> None:
    """The gradient's own Scan and If have gradients."""
    body = """
        z, ys = Scan (x, xs) <num_scan_inputs = 1, body = b (D s, D e) => (D t, D o) {
            m = MatMul (s, w)  p = Mul (m, e)  t = Sin (p)  o = Mul (t, t)
        }>
        y = If (yes) <
            then_branch = tb () => (D a) { a = Mul (z, z) },
            else_branch = fb () => (D d) { d = Identity (z) }>
        """
    inputs = "double[N,2] x, double[S,N,2] xs, double[2,2] w, bool yes"
    once = add_gradients(model(f"graph ({inputs}) => (double[N,2] y) {{ {body} }}"), "y", "w")
    seed = RNG.normal(size=(1, N, 2))
    feeds = {"x": X, "xs": XS, "w": W, "yes": YES, "seed:y": seed}
    check_graph(once, "gradient:w", ["x", "w", "seed:y"], feeds)


def test_a_model_with_lengths_of_any_name() -> None:
    """The runtime takes equal names for equal lengths: those that are added differ."""
    proto = model("""
        graph (double[T,2] x, double[unk__0,T,2] xs, double[2,2] w) => (D y) {
            z, y = Scan (x, xs) <num_scan_inputs = 1, body = b (D s, D e) => (D t, D o) {
                m = MatMul (s, w)  p = Mul (m, e)  t = Sin (p)  o = Exp (p)
            }>
        }""")
    check_graph(proto, "y", ["x", "xs", "w"], {"x": X, "xs": XS, "w": W}, targets=2)


@pytest.mark.parametrize(("kind", "bound"), [("float", 1e-5), ("float16", 2e-2)])
def test_other_types(kind: str, bound: float) -> None:
    """Gradients have the type of the tensors."""

    def typed(kind: str) -> onnx.ModelProto:
        text = f"""
            graph ({kind}[N,2] x, {kind}[S,N,2] xs, {kind}[2,2] w, bool c) => ({kind}[N,2] y)
            <int64 two = {{2}}, bool yes = {{1}}> {{
                z = Scan (x, xs) <num_scan_inputs = 1, body = b (D s, D e) => (D t) {{
                    m = MatMul (s, w)  p = Add (m, e)  t = Tanh (p)
                }}>
                l = Loop (two, yes, z) <body = b2 (int64 i, bool c2, D s2) => (bool d, D t2) {{
                    d = Identity (c2)  t2 = Tanh (s2)
                }}>
                y = If (c) <
                    then_branch = t1 () => (D a) {{ a = Mul (l, x) }},
                    else_branch = f1 () => (D b1) {{ b1 = Identity (l) }}>
            }}"""
        return model(text.replace("D ", f"{kind}[] "))

    seed = RNG.normal(size=(2, N, 2))
    feeds = {"x": X, "xs": XS, "w": W, "seed:y": seed}
    results = []
    for name, dtype in (("double", np.float64), (kind, {"float": "f4", "float16": "f2"}[kind])):
        changed = add_gradients(typed(name), "y", ["x", "xs", "w"])
        values = {n: a.astype(dtype) for n, a in feeds.items()}
        names = [o.name for o in changed.graph.output[1:]]
        results.append(session(changed.SerializeToString()).run(names, {**values, "c": YES}))
    for exact, found in zip(*results, strict=True):
        assert found.dtype == np.dtype({"float": "f4", "float16": "f2"}[kind])
        assert np.abs(found - exact).max() <= bound * np.abs(exact).max()


def test_what_runtimes_write_inside() -> None:
    """Shapes are known past operators of the runtime, and its operators are differentiated."""
    proto = model("""
        graph (double[N,2] x, double[2,2] w, bool c) => (double[N,2] y) {
            y = If (c) <
                then_branch = t () => (D a) { m = com.microsoft.Gelu (x)  a = MatMul (m, w) },
                else_branch = f () => (D b) { b = Identity (x) }>
        }""")
    add_gradients(proto, "y", ["x", "w"])


def test_rectifiers_inside_are_guided() -> None:
    proto = model("""
        graph (double[N,2] x, bool c) => (double[N,2] y) {
            y = If (c) <
                then_branch = t () => (D a) { [inside] a = Relu (x) },
                else_branch = f () => (D b) { b = Identity (x) }>
        }""")
    made = add_gradients(proto, "y", "x", policy="guided")
    assert [p.value for p in made.metadata_props] == ["inside"]
    x, seed = np.array([[1.0, -1.0], [2.0, 3.0]]), np.array([[[1.0, 1.0], [-1.0, 2.0]]])
    feeds = {"x": x, "c": YES, "seed:y": seed}
    [g] = session(made.SerializeToString()).run(["gradient:x"], feeds)
    np.testing.assert_array_equal(g[0], [[1, 0], [0, 2]])


def test_a_scan_of_opset_8_is_refused() -> None:
    """Its batch axis is lost by onnx's converter."""
    proto = model("graph (double[N,2] x) => (double[N,2] y) { y = Exp (x) }", 8)
    proto.graph.node[0].op_type = "Scan"
    with pytest.raises(ModelError, match="Scan .* changes its meaning"):
        Prepared(proto, Path("scan.onnx"), 13)
