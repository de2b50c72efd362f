"""``onnxcam gradient --check``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxcam
from onnxcam.gradient_check import check_gradient

from ..conftest import parse, shared, small_cnn

CALL = ("gradient", "model.onnx", "--of", "logits", "-o", "g.onnx", "--check")


@pytest.mark.parametrize("given", ["random", "photos/a.png", "image.npy"])
@pytest.mark.parametrize("form", [(), ("--blocked",), ("--cotangents", "2")])
def test_right_gradients(folder: Path, call, given: str, form: tuple[str, ...]) -> None:
    np.save("image.npy", np.random.default_rng(1).normal(size=(3, 16, 16)).astype("f"))
    tensors = ("image", "r2", "w2", "b1")
    code, out, err = call(*CALL, given, *form, *(a for t in tensors for a in ("--to", t)))
    assert (code, err) == (0, "")
    errors = re.findall(r"checked   (\w+): relative error (\S+) along 3 directions", out)
    assert [name for name, _ in errors] == list(tensors)
    assert all(0 <= float(error) < 1e-2 for _, error in errors), out


@pytest.mark.parametrize("factor", [0.0, 0.5, -1.0, 1.3])
def test_a_wrong_gradient_is_told(tmp_path: Path, factor: float) -> None:
    """The result is multiplied by a factor."""
    path = tmp_path / "model.onnx"
    path.write_bytes(small_cnn().SerializeToString())
    made = onnxcam.add_gradients(path, "logits", "image")
    [right] = check_gradient(made, path, "logits", ["image"], "random")
    assert right.error < 1e-2 < right.largest
    node = next(n for n in made.graph.node if "gradient:image" in n.output)
    node.output[0] = "unscaled"
    made.graph.initializer.append(numpy_helper.from_array(np.array(factor, "f"), "factor"))
    made.graph.node.append(onnx.helper.make_node("Mul", ["unscaled", "factor"], ["gradient:image"]))
    [wrong] = check_gradient(made, path, "logits", ["image"], "random")
    assert wrong.error > 0.1
    assert wrong.largest == pytest.approx(abs(factor) * right.largest, rel=1e-4, abs=1e-9)


def test_a_gradient_that_lacks_a_part_is_told(tmp_path: Path) -> None:
    """That of another model, in which one of two ways from image to score is cut off."""
    ways = """
        <ir_version: 8, opset_import: ["" : 16]>
        net (float[1,8] x) => (float[1,8] y) { a = Tanh (x) b = MatMul (x, w) y = Add (a, b) }
    """
    w = {"w": np.random.default_rng(0).normal(size=(8, 8)).astype("f") * 0.1}
    path = tmp_path / "model.onnx"
    path.write_bytes(parse(ways, w).SerializeToString())
    made = onnxcam.add_gradients(
        parse(ways.replace("Tanh (x)", "Tanh (w0)"), {**w, "w0": np.ones((1, 8), "f")}), "y", "x"
    )
    [found] = check_gradient(made, path, "y", ["x"], "random")
    assert found.error > 0.1


def test_nan_and_infinity_are_named(folder: Path, call) -> None:
    model = parse(
        """
        <ir_version: 8, opset_import: ["" : 16]>
        net (float[1,3,8,8] image) => (float[1,3,8,8] y) {
            large = Mul (image, thousand)
            vast = Exp (large)
            y = Tanh (vast)
        }
        """,
        {"thousand": np.array(1000, "f")},
    )
    (folder / "vast.onnx").write_bytes(model.SerializeToString())
    call_ = ("gradient", "vast.onnx", "--of", "y", "--to", "image", "-o", "g.onnx")
    code, out, err = call(*call_, "--check", "random")
    assert code == 1 and "wrote     g.onnx" in out
    assert re.search(
        r"onnxcam: error: 'gradient:image' holds (NaN|infinity) in \d+ of 192 places", err
    )
    np.save("nan.npy", np.full((3, 8, 8), np.nan, "f"))
    code, _, err = call(*call_, "--check", "nan.npy")
    assert code == 1 and "onnxcam: error: 'image' holds NaN in 192 of 192 places." in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("gone.png",), 2, "gone.png: no such file"),
        (("gone.npy",), 2, "gone.npy: cannot be read as a .npy file"),
        (("small.npy",), 2, "'image' takes [3, 16, 16]"),
        (("random", "--policy", "guided"), 2, "is no derivative"),
    ],
)
def test_mistakes(folder: Path, call, arguments, code, message) -> None:
    np.save("small.npy", np.zeros((3, 8, 8), "f"))
    found, _, err = call(*CALL, *arguments, "--to", "image")
    assert found == code and message in " ".join(err.replace("│", "").split())


def test_a_real_model(tmp_path: Path) -> None:
    """Thousands of kinks: the best step's error is still small."""
    path = shared("models", "efficientnet-lite0-torch.onnx")
    names = [onnx.load(path).graph.output[0].name, onnx.load(path).graph.input[0].name]
    made = onnxcam.add_gradients(path, *names)
    photograph = str(onnxcam.default_photograph())
    [found] = check_gradient(made, path, names[0], names[1:], photograph)
    assert found.problem == "" and found.error < 0.1 < found.largest
