"""A network that takes one size only, in a file that leaves the size open."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import InferenceError, OnnxcamError

from ..conftest import parse

WAY_OUT = re.compile(r"(preprocess = \{.*\}) \(")


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """A recogniser of lines of 32 rows and any length: ``[N, 7, T]``, its rows joined to channels."""
    rng = np.random.default_rng(0)
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,1,height,width] image) => (float[N,7,T] scores) {
            c = Conv <pads=[1,1,1,1], strides=[2,2]> (image, w1)
            r = Relu (c)
            p = Transpose <perm=[0,3,1,2]> (r)
            joined = Reshape (p, shape)
            y = MatMul (joined, w2)
            s = Transpose <perm=[0,2,1]> (y)
            scores = Softmax <axis=1> (s)
        }
        """,
        {
            "w1": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
            "shape": np.array([0, 0, 64]),
            "w2": rng.normal(size=(64, 7)).astype(np.float32),
        },
    )
    path = tmp_path / "line.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("target", ["text/0:3,5", "step:1", "scores[2,1]"])
def test_the_card_that_the_error_writes_is_the_way_out(line: Path, target: str) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (32, 100), dtype=np.uint8)
    photo = Image.fromarray(grey)
    with pytest.warns(UserWarning, match="guessed"), pytest.raises(OnnxcamError) as raised:
        onnxcam.Explainer(line).explain(photo, target)
    message = str(raised.value)
    assert message.startswith(
        f"{line}: the run failed. Height and width of the images are left open"
    )
    assert "224x224 was tried" in message
    [card] = WAY_OUT.findall(message)
    assert card == 'preprocess = {color = "grey", divide = 255.0, size = [HEIGHT, WIDTH]}'
    line.with_suffix(".toml").write_text(card.replace("HEIGHT", "32").replace("WIDTH", "100"))
    explainer = onnxcam.Explainer(line)
    [ready] = explainer.explain(grey[None].astype(np.float32) / 255, target)
    [found] = explainer.explain(photo, target)
    assert found.score == pytest.approx(ready.score, abs=1e-4)
    np.testing.assert_allclose(found.signed, ready.signed, atol=1e-4 * np.abs(ready.signed).max())


def test_what_the_size_is_not_to_blame_for(line: Path) -> None:
    """Ready arrays have the user's size; a fixed length is said as it is."""
    with pytest.warns(UserWarning, match="guessed"):
        explainer = onnxcam.Explainer(line)
    with pytest.raises(InferenceError, match="ONNX Runtime failed") as raised:
        explainer.explain(np.zeros((1, 48, 64), np.float32), "step:1")
    assert "left open" not in str(raised.value)

    model = onnx.load(line)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 100
    onnx.save(model, line)
    with pytest.warns(UserWarning, match="guessed"):
        explainer = onnxcam.Explainer(line)
    with pytest.raises(InferenceError, match="Height of the images is left open") as raised:
        explainer.explain(onnxcam.default_photograph(), "step:1")
    assert "size = [HEIGHT, 100]" in str(raised.value)
