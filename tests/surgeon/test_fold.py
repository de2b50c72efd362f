"""What is known before any run is evaluated, in inner graphs too; of an If a branch remains."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

import onnxcam
from onnxcam.graph.values import dims
from onnxcam.model.fold import all_nodes
from onnxcam.model.prepare import Prepared

from ..conftest import runtime

X = np.random.default_rng(4).normal(size=(2, 1, 3)).astype("f")
WEIGHTS = "<float[1] one = {1}, float[3] w = {1, -2, 3}, bool yes = {1}, bool no = {0}>"


def model(body: str, inputs: str = "float[N,1,3] x", opset: int = 17) -> onnx.ModelProto:
    header = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    found = parser.parse_model(f"{header} net ({inputs}) => (float[] y) {WEIGHTS} {{ {body} }}")
    return onnx.shape_inference.infer_shapes(found)


def prepared(proto: onnx.ModelProto, tmp_path) -> ir.Model:
    """Prepare a copy; what it computes must not change."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    found = Prepared(copy, tmp_path / "net.onnx").model
    after = ir.serde.serialize_model(found)
    if dims(found.graph.outputs[0]) is not None:
        onnx.checker.check_model(after, full_check=True)
    feeds = {"x": X, "c": np.array(True)}
    feeds = {i.name: feeds[i.name] for i in proto.graph.input}
    for one, other in zip(
        runtime(proto).run(None, feeds), runtime(after).run(None, feeds), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    return found


def kinds(found: ir.Model) -> list[str]:
    return [n.op_type for n in found.graph]


KNOWN = {
    "a stored condition": "y = If (yes) <then_branch = t () => (float[] a) { a = Exp (x) },"
    " else_branch = f () => (float[] b) { b = Sin (x) }>",
    "a computed condition": "n = Not (no)  y = If (n) <then_branch = t () => (float[] a) { a = Exp (x) },"
    " else_branch = f () => (float[] b) { b = Sin (x) }>",
    "the other branch": "y = If (no) <then_branch = t () => (float[] a) { a = Sin (x) },"
    " else_branch = f () => (float[] b) { b = Exp (x) }>",
    "one in another": """y = If (yes) <
        then_branch = t () => (float[] a) {
            m = Not (yes)
            a = If (m) <then_branch = tt () => (float[] aa) { aa = Sin (x) },
                        else_branch = tf () => (float[] ab) { ab = Exp (x) }>
        },
        else_branch = f () => (float[] b) { b = Sin (x) }>""",
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_taken_branch_remains(name: str, tmp_path) -> None:
    assert kinds(prepared(model(KNOWN[name]), tmp_path)) == ["Exp"]


def test_weights_and_names_of_branches(tmp_path) -> None:
    """Branches may use the same names for different things, and hand out what others compute."""
    found = prepared(
        model("""
            p = If (yes) <then_branch = t () => (float[] m) <float[1] u = {2}> { k = Mul (x, u)  m = Exp (k) },
                          else_branch = f () => (float[] m) { m = Sin (x) }>
            q, r, s = If (no) <
                then_branch = t2 () => (float[] m, float[] m2, float[] m3) {
                    m = Sin (p)  m2 = Cos (p)  m3 = Cos (x) },
                else_branch = f2 () => (float[] m, float[] l, float[] u) <float[1] u = {5}> {
                    k = Add (p, u)  m = Tanh (k)  l = Identity (x) }>
            z = Sum (q, r, s)
            y = Identity (z)"""),
        tmp_path,
    )
    assert kinds(found) == ["Mul", "Exp", "Add", "Tanh", "Identity", "Sum", "Identity"]


def test_inner_graphs_of_a_branch(tmp_path) -> None:
    found = prepared(
        model("""
            y = If (yes) <
                then_branch = t () => (float[] a) {
                    k = Mul (x, w)
                    a = If (c) <then_branch = tt () => (float[] aa) { e = Exp (k)  aa = Mul (e, k) },
                                else_branch = tf () => (float[] ab) { ab = Identity (k) }>
                },
                else_branch = f () => (float[] b) { b = Identity (x) }>""",
            "float[N,1,3] x, bool c"),
        tmp_path,
    )  # fmt: skip
    assert kinds(found) == ["Mul", "If"]


SQUEEZE = """
    s = Shape (x)
    i = Constant <value = int64 {1}> ()
    d = Gather (s, i)
    o = Constant <value = int64 {1}> ()
    c1 = Equal (d, o)
    p = If (c1) <
        then_branch = t () => (float[] a) { ax = Constant <value = int64[1] {1}> ()  a = Squeeze (x, ax) },
        else_branch = f () => (float[] b) { b = Identity (x) }>
    m = Mul (p, w)  y = Exp (m)"""


def test_a_condition_on_a_known_length(tmp_path) -> None:
    """As PyTorch exports ``squeeze``, whose rank would be unknown."""
    found = prepared(model(SQUEEZE), tmp_path)
    assert kinds(found)[-3:] == ["Squeeze", "Mul", "Exp"]
    assert dims(found.graph.outputs[0]) == ["N", 3]
    size = SQUEEZE.replace("d = Gather (s, i)", "r = Size (s)  d = Sub (r, o0)").replace(
        "i = Constant <value = int64 {1}> ()", "o0 = Constant <value = int64 {2}> ()"
    )
    assert kinds(prepared(model(size), tmp_path))[-3:] == ["Squeeze", "Mul", "Exp"]
    kept = prepared(model(SQUEEZE, "float[N,M,3] x"), tmp_path)
    assert "If" in kinds(kept)
    parts = SQUEEZE.replace(
        "d = Gather (s, i)",
        "j = Constant <value = int64[1] {1}> ()  k = Constant <value = int64[1] {2}> ()  t1 = Slice (s, j, k)  d = Squeeze (t1)",
    )
    assert kinds(prepared(model(parts), tmp_path))[-3:] == ["Squeeze", "Mul", "Exp"]


def test_constants_of_inner_graphs(tmp_path) -> None:
    """A rule that has to know its operand finds it in a body as well."""
    proto = model("""
        y = If (c) <
            then_branch = t () => (float[] a) {
                h = Constant <value = int64[2] {0, 1}> ()  k = Constant <value = int64[1] {3}> ()
                s = Concat <axis = 0> (h, k)  q = Reshape (x, s2)  a = Exp (q)
            },
            else_branch = f () => (float[] b) { b = Sin (x) }>""".replace("s2", "s"),
        "float[N,1,3] x, bool c",
    )  # fmt: skip
    found = prepared(proto, tmp_path)
    [node] = found.graph
    body = node.attributes["then_branch"].as_graph()
    assert [n.op_type for n in body] == ["Reshape", "Exp"]
    made = onnxcam.add_gradients(proto, "y", "x")
    seed = np.ones((1, *X.shape), np.float32)
    [g] = runtime(made).run(["gradient:x"], {"x": X, "c": np.array(True), "seed:y": seed})
    np.testing.assert_allclose(g[0], np.exp(X), rtol=1e-6)


@pytest.mark.parametrize(("op", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_lifting_minds_inner_graphs(op: str, opset: int, tmp_path) -> None:
    proto = parser.parse_model(f"""
        <ir_version: 4, opset_import: ["" : {opset}]>
        net (float[1,1,1,3] x, bool c) => (float[] y) <float[4] scales = {{1, 1, 1, 2}}> {{
            y = If (c) <then_branch = t () => (float[] a) {{ a = {op} <mode = "linear"> (x, scales) }},
                        else_branch = f () => (float[] b) {{ b = {op} <mode = "nearest"> (x, scales) }}>
        }}""")
    lifted = Prepared(
        onnx.ModelProto.FromString(proto.SerializeToString()), tmp_path / "n.onnx", 13
    ).model
    after = ir.serde.serialize_model(lifted)
    assert {n.op_type for n in all_nodes(after.graph)} == {"If", "Resize"}
    for condition in (True, False):
        feeds = {"x": X[:1, None], "c": np.array(condition)}
        one, other = (runtime(m).run(None, feeds)[0] for m in (proto, after))
        np.testing.assert_allclose(one, other, rtol=1e-6)
