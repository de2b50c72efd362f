"""Operands that are settings and not data: the message says so."""

from __future__ import annotations

import pytest

import onnxcam
from onnxcam.errors import NoGradientError, TensorError

from .graphs import model

SETTINGS = {
    'y = Resize<mode="linear">(x, , s)': "Resize passes none: it takes operand 2 as a setting",
    'n = Neg(s) y = Resize<mode="linear">(x, , n)': "Resize passes none: it takes operand 2",
    "y = Dropout(x, r)": "Dropout passes none: it takes operand 1 as a setting",
}


@pytest.mark.parametrize("body", SETTINGS)
def test_settings_are_named(body: str) -> None:
    text = f"graph (float[1,1,4,4] x, float[4] s, float r) => (float[] y) {{ {body} }}"
    to = "r" if "r)" in body else "s"
    with pytest.raises(NoGradientError, match=SETTINGS[body].replace("(", "\\(")):
        onnxcam.add_gradients(model(text), "y", to)


def test_the_region_of_a_crop_is_refused() -> None:
    """A gradient through the data alone would not be the whole."""
    crop = 'y = Resize<coordinate_transformation_mode="tf_crop_and_resize">(x, roi, , n)'
    text = f"graph (double[8] v, double[1,1,4,4] x) => (double[] y) <int64[4] n = {{1, 1, 2, 2}}> {{ roi = Sin(v) {crop} }}"
    with pytest.raises(NoGradientError, match="the region that it crops"):
        onnxcam.add_gradients(model(text), "y", ["x", "v"])
    assert onnxcam.add_gradients(model(text), "y", "x")


def test_a_sequence_has_no_gradient() -> None:
    text = "graph (float[4,2] x) => (seq(float[1,2]) y) { y = SplitToSequence(x) }"
    with pytest.raises(TensorError, match="'y' is a sequence or optional"):
        onnxcam.add_gradients(model(text), "y", "x")
