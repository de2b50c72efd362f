"""Every command of docs/choosing.md, and the methods that the page names."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime import quantization
from PIL import Image

import onnxcam
from onnxcam.methods.registry import methods

from ..conftest import small_cnn
from ..methods.test_transformers import vit  # noqa: F401
from ..yolo import yolo

PAGE = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text("utf-8")
COMMANDS = re.findall(r"^onnxcam (.*)$", PAGE, re.MULTILINE)
LABELS = ["tabby", "lynx", "dog", "cup", "hat"]
CARD = """
[preprocess]
divide = 255
resize = "squash"
size = [{0}, {0}]

[labels]
names = {1}
"""


class Reader(quantization.CalibrationDataReader):
    def __init__(self, size: int) -> None:
        images = np.random.default_rng(0).uniform(size=(4, 3, size, size)).astype("f")
        self.left = iter([{"image": images}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, cards and the photograph that the commands name, but for the transformer."""
    made = tmp_path_factory.mktemp("choosing")
    photo = Image.open(onnxcam.default_photograph()).convert("RGB")
    photo.resize((160, 120)).save(made / "photo.jpg")
    onnx.save(small_cnn(), made / "net.onnx")
    quantization.quantize_static(
        str(made / "net.onnx"), str(made / "quantized.onnx"), Reader(16),
        quant_format=quantization.QuantFormat.QDQ, reduce_range=True,
    )  # fmt: skip
    onnx.save(yolo(), made / "detector.onnx")
    for name in ("net", "quantized"):
        (made / f"{name}.toml").write_text(CARD.format(16, json.dumps(LABELS)))
    (made / "vit.toml").write_text(CARD.format(12, json.dumps(LABELS[:4])))
    return made


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(
    command: str,
    folder: Path,
    vit: Path,  # noqa: F811
    call,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (folder / "vit.onnx").write_bytes(vit.read_bytes())
    monkeypatch.chdir(folder)
    words = shlex.split(command)
    if words[0] == "compare":
        code, out, _ = call(*words)
        assert code in (0, 3) and "quantized.onnx" in out
        return
    code, _, err = call(*words, "-o", str(tmp_path / "out"))
    assert code == 0, err
    [image] = json.loads((tmp_path / "out" / "explanations.json").read_text("utf-8"))["images"]
    asked = [words[i + 1] for i, word in enumerate(words) if word == "--method"]
    default = "layer-cam" if "detector.onnx" in words else "grad-cam"
    found = list(dict.fromkeys(record["method"] for record in image["explanations"]))
    assert found == (asked or [default])
    assert all(record["note"] != "zero" for record in image["explanations"])


def test_the_page_names_methods_that_there_are() -> None:
    assert len(COMMANDS) == len(set(COMMANDS)) == PAGE.count("onnxcam explain") + 1
    known = set(methods())
    named = set(re.findall(r"`([a-z+-]+)`", PAGE)) - {"compare"}
    assert named and named <= known
