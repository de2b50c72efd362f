"""Numbers that an input cannot hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxcam
from onnxcam.errors import InputArrayError
from onnxcam.inputs.others import read_others

from ..conftest import parse

IMAGE = np.random.default_rng(0).normal(size=(3, 8, 8)).astype("f")


@pytest.fixture
def explainer() -> onnxcam.Explainer:
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 16]>
        net (float[N,3,8,8] image, float[N,4] vector, uint8[N,1] kind) => (float[N,4] scores) {
            maps = Conv (image, w)
            high = Relu (maps)
            pooled = ReduceMean <axes=[2,3], keepdims=0> (high)
            factor = Cast <to=1> (kind)
            dense = MatMul (pooled, head)
            sum = Add (dense, vector)
            scores = Mul (sum, factor)
        }
        """,
        {
            "w": np.random.default_rng(1).normal(size=(6, 3, 3, 3)).astype("f"),
            "head": np.random.default_rng(2).normal(size=(6, 4)).astype("f"),
        },
    )
    return onnxcam.Explainer(model, preprocess="unit")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["vector=nan", "kind=1"], "input 'vector' holds NaN"),
        (["vector=1e300", "kind=1"], "input 'vector': 1e+300 is no float32"),
        (["vector=0", "kind=300"], "input 'kind': 300.0 is no uint8"),
        (["vector=0", "kind=-1"], "input 'kind': -1.0 is no uint8"),
        (["vector=0", "kind=1.5"], "input 'kind': 1.5 is no uint8"),
        (["vector=0", "kind=nan"], "input 'kind': nan is no uint8"),
    ],
)
def test_refused(explainer: onnxcam.Explainer, given: list[str], message: str) -> None:
    with pytest.raises(InputArrayError) as caught:
        explainer.explain(IMAGE, inputs=read_others(given))
    assert message in str(caught.value)


def test_a_file_with_nan(explainer: onnxcam.Explainer, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([0, np.nan, 0, 0], "f"))
    with pytest.raises(InputArrayError, match="input 'vector' holds NaN"):
        explainer.explain(IMAGE, inputs=read_others([f"vector={tmp_path / 'v.npy'}", "kind=1"]))


def test_taken(explainer: onnxcam.Explainer) -> None:
    found = explainer.explain(IMAGE, 2, inputs=read_others(["vector=-2.5", "kind=255"]))
    zero = explainer.explain(IMAGE, 2, inputs=read_others(["vector=zeros", "kind=255"]))
    assert found[0].score == pytest.approx(zero[0].score - 2.5 * 255, rel=1e-5)
