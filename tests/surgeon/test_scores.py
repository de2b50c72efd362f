"""Which tensor is the score, on endings and heads that strangers came with."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import onnxcam
from onnxcam.errors import ScoreError, TargetError

from ..conftest import parse

RNG = np.random.default_rng(31)
IMAGE = RNG.normal(size=(3, 16, 16)).astype("f")


def model(body: str, outputs: str, **weights: np.ndarray):
    """A network whose ``body`` leads from ``flat`` [N,8] and ``logits`` [N,5] to outputs."""
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,16,16] image) => ({outputs}) {{
            c = Conv <pads=[1,1,1,1], strides=[2,2]> (image, w)
            maps = Relu (c)
            pooled = GlobalAveragePool (maps)
            flat = Flatten (pooled)
            logits = MatMul (flat, head)
            {body}
        }}
    """
    stored = {
        "w": RNG.normal(size=(8, 3, 3, 3)).astype("f"),
        "head": RNG.normal(size=(8, 5)).astype("f"),
        **weights,
    }
    used = [name for name in stored if name in text.replace("(", " ").replace(",", " ")]
    return parse(text, {name: stored[name] for name in used})


def explainer(save, *arguments: str, **weights: np.ndarray) -> onnxcam.Explainer:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return onnxcam.Explainer(save(model(*arguments, **weights)), preprocess="unit")


K = np.array([3])
FOUND = {
    "TopK": ("p = Softmax (logits) best, which = TopK (p, k)", "float[N,3] best, int64[N,3] which"),
    "ArgMax": ("p = Softmax (logits) label = ArgMax <axis=1, keepdims=0> (p)", "int64[N] label"),
    "ArgMax of logits": ("label = ArgMax <axis=1> (logits)", "int64[N,1] label"),
    "a box behind Sigmoid": (
        "b = MatMul (flat, four) out0 = Sigmoid (b) out1 = Softmax (logits)",
        "float[N,4] out0, float[N,5] out1",
    ),
    "Softmax with a product": (
        "e = Exp (logits) s = ReduceSum <keepdims=1> (e, k1) r = Reciprocal (s) out = Mul (e, r)",
        "float[N,5] out",
    ),
    "LogSoftmax": (
        "e = Exp (logits) s = ReduceSum <keepdims=1> (e, k1) l = Log (s) out = Sub (logits, l)",
        "float[N,5] out",
    ),
    "Sigmoid": (
        "n = Neg (logits) e = Exp (n) a = Add (e, one) out = Div (one, a)", "float[N,5] out",
    ),
}  # fmt: skip
WEIGHTS = {
    "k": K,
    "k1": np.array([1]),
    "one": np.float32(1),
    "four": RNG.normal(size=(8, 4)).astype("f"),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_logits_are_found(name: str, save) -> None:
    found = explainer(save, *FOUND[name], **WEIGHTS)
    assert found.plan.score == "logits" and found.plan.classes == 5
    plain = explainer(save, "out = Identity (logits)", "float[N,5] out")
    assert plain.plan.score in ("logits", "out")


@pytest.mark.parametrize(
    ("body", "outputs", "way_out"),
    [
        ("p = Softmax (logits) out = Gather <axis=1> (p, some)", "float[N,3] out", "--score 'logits'"),
        ("p = Softmax (logits) l = Log (p) out = Neg (l)", "float[N,5] out", "--score 'logits'"),
        ("p = Sigmoid (logits) q = Sub (one, p) out = Concat <axis=1> (q, p)", "float[N,10] out",
         "--score 'logits'"),
    ],
)  # fmt: skip
def test_what_is_made_of_probabilities_is_said_with_a_way_out(
    body: str, outputs: str, way_out: str, save
) -> None:
    path = save(model(body, outputs, some=np.array([1, 3, 0]), one=np.float32(1)))
    with pytest.warns(UserWarning, match=re.escape(way_out)):
        onnxcam.Explainer(path, preprocess="unit")
    option = way_out.partition("'")[2].rstrip("'")
    assert onnxcam.Explainer(path, preprocess="unit", score=option).plan.score == option


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("b = MatMul (flat, four) bbox = Sigmoid (b)", "float[N,4] bbox"),
        ("p = Softmax (logits) out = Transpose <perm=[1,0]> (p)", "float[5,N] out"),
        ("out = Identity (four)", "float[8,4] out"),
        ("t = ReduceL2 <axes=[1], keepdims=1> (logits) out = Div (logits, t)", "float[N,5] out"),
    ],
)
def test_what_holds_no_classes_is_refused(body: str, outputs: str, save) -> None:
    found = None
    with pytest.raises(ScoreError, match="no output looks like class scores"):
        found = onnxcam.Explainer(save(model(body, outputs, **WEIGHTS)), preprocess="unit")
        found.explain(IMAGE)


def test_inner_tensors_of_a_model_of_whole_numbers(save) -> None:
    """A segmentation that ends in ArgMax: its scores are found, and any element is explained."""
    path = save(
        parse(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float[N,3,16,16] image) => (int64[N,16,16] labels) {
                c = Conv <pads=[1,1,1,1]> (image, w)
                maps = Relu (c)
                scores = Conv (maps, v)
                labels = ArgMax <axis=1, keepdims=0> (scores)
            }
            """,
            {
                "w": RNG.normal(size=(8, 3, 3, 3)).astype("f"),
                "v": RNG.normal(size=(2, 8, 1, 1)).astype("f"),
            },
        )
    )
    for score in ("auto", "scores"):
        found = onnxcam.Explainer(path, preprocess="unit", score=score)
        region, element, part = found.explain(
            IMAGE, ["region:1", "scores[1,2,3]", "scores[1,:,:]:mean"]
        )
        for one in (region, element, part):
            assert np.abs(one.signed).max() > 0


def test_quotes_in_names_are_quoted(save) -> None:
    network = model(
        "out = Reshape (logits, shape)", "float[N,5,1,1] out", shape=np.array([0, 5, 1, 1])
    )
    network.graph.node[-1].op_type = "Identity"
    del network.graph.node[-1].input[1:]
    network.graph.node[-1].output[0] = network.graph.output[0].name = "it's a bbox"
    del network.graph.initializer[-1]
    network.graph.output[0].type.tensor_type.shape.dim.pop()
    network.graph.output[0].type.tensor_type.shape.dim.pop()
    with pytest.raises(ScoreError, match=r"""--score 'it'"'"'s a bbox'"""):
        onnxcam.Explainer(save(network), preprocess="unit").explain(IMAGE)


def test_an_index_that_only_the_run_can_refuse(save) -> None:
    network = model("rows = Reshape (maps, s)", "float[N,K,L] rows", s=np.array([0, 8, -1]))
    for axis in (2, 3):
        network.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"size{axis}"
    del network.graph.node[2:5]  # nothing after the maps
    del network.graph.initializer[1]
    found = onnxcam.Explainer(save(network), preprocess="unit", layer="maps")
    found.explain(IMAGE, "rows[7,63]")
    with pytest.raises(TargetError, match="only the run knows"):
        found.explain(IMAGE, "rows[7,64]")


@pytest.mark.parametrize("text", ["region:", "[3]", "out[]", "best of", "cat - "])
def test_other_forms_are_pointed_to(text: str, save) -> None:
    found = explainer(save, "out = Identity (logits)", "float[N,5] out")
    with pytest.raises(TargetError, match="'onnxcam targets' lists"):
        found.explain(IMAGE, text)
