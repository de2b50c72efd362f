"""``onnxcam gradient``: what it writes and what it refuses."""

from __future__ import annotations

import onnx
import pytest

from ..conftest import small_cnn
from .test_cli import call, folder  # noqa: F401  (fixtures)

ARGUMENTS = ("gradient", "model.onnx", "--of", "logits", "--to", "image", "--to", "r2")


def test_writes_a_model_with_seed_and_gradients(folder, call) -> None:  # noqa: F811
    code, out, err = call(*ARGUMENTS, "-o", "gradient.onnx")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "wrote     gradient.onnx",
        "input     seed:logits  float [T, N, 5]",
        "output    gradient:image  float [T, N, 3, 16, 16]",
        "output    gradient:r2  float [T, N, 8, 8, 8]",
    ]
    onnx.checker.check_model(str(folder / "gradient.onnx"), full_check=True)


def test_policies_say_what_they_changed(folder, call) -> None:  # noqa: F811
    code, out, err = call(*ARGUMENTS, "-o", "guided.onnx", "--policy", "guided")
    assert (code, err) == (0, "") and "guided    2 rectifier(s)" in out
    smooth = small_cnn()
    for node in smooth.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Tanh"
    (folder / "model.onnx").write_bytes(smooth.SerializeToString())
    code, out, err = call(*ARGUMENTS, "-o", "guided.onnx", "--policy", "guided")
    assert code == 0 and "'guided' changes nothing" in err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--of", "logit"), "model.onnx: no tensor 'logit' in the main graph. Nearest: logits"),
        (("--to", "probabilities"), "'logits' does not depend on 'probabilities'"),
        (("-o", "model.onnx"), "model.onnx: is the model's own file. Choose another with -o."),
        (("-o", "."), "is not a file"),
        (("-o", "/dev/null"), "is not a file"),
        (("-o", "n" * 300 + ".onnx"), "cannot be written"),
        (("--engine", "ort"), "onnxcam[ort-training]"),
    ],
)
def test_mistakes_are_one_message(folder, call, changed, message) -> None:  # noqa: F811
    try:
        from onnxruntime.capi._pybind_state import GradientGraphBuilder  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("this environment has the gradient builder")
    code, out, err = call(*ARGUMENTS, "-o", "gradient.onnx", *changed)
    assert code == 2 and out == "" and message in err
    assert not (folder / "gradient.onnx").exists()
