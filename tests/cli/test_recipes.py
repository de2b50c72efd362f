"""Every command of docs/targets.md on keypoints, masks and text, against the plain model's numbers."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image, ImageDraw

import onnxcam

from ..conftest import parse, runtime
from ..yolo import yolo

PAGE = (Path(__file__).parents[2] / "docs" / "targets.md").read_text("utf-8")
PART = PAGE.partition("## Keypoints, masks and text boxes\n")[2].partition("\n## ")[0]
COMMANDS = re.findall(r"^onnxcam (explain .*)$", PART, re.MULTILINE)
PHOTO = Image.open(onnxcam.default_photograph()).convert("RGB")  # 451 by 300
BOX = (90, 60, 210, 130)
CARD = '[preprocess]\ndivide = 255\nresize = "squash"\nsize = [96, 96]\n'


def maps(output: str, channels: int, last: str) -> onnx.ModelProto:
    """Maps ``[N, K, H / 4, W / 4]`` of keypoints, or probabilities ``[N, 1, H / 2, W / 2]``."""
    rng = np.random.default_rng(31)
    up = 2 if last == "Sigmoid" else 1
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,96,96] image) => (float[N,{channels},{24 * up},{24 * up}] {output}) {{
            c1 = Conv <pads=[1,1,1,1], strides=[2,2]> (image, w1)  r1 = Relu (c1)
            c2 = Conv <pads=[1,1,1,1], strides=[2,2]> (r1, w2)  r2 = Relu (c2)
            c3 = ConvTranspose <strides=[{up},{up}], kernel_shape=[{up},{up}]> (r2, w3)
            r3 = Relu (c3)
            logits = Conv <pads=[1,1,1,1]> (r3, w4)
            {output} = {last} (logits)
        }}
        """,
        {
            "w1": rng.normal(size=(6, 3, 3, 3)).astype(np.float32) / 3,
            "w2": rng.normal(size=(6, 6, 3, 3)).astype(np.float32) / 4,
            "w3": rng.normal(size=(6, 6, up, up)).astype(np.float32) / 2,
            "w4": rng.normal(size=(channels, 6, 3, 3)).astype(np.float32) / 2,
        },
    )


MODELS = {
    "pose": lambda: yolo("pose", ("person",), 51),
    "seg": lambda: yolo("segment", ("cup", "hat", "cat"), 32),
    "heat": lambda: maps("heatmaps", 17, "Identity"),
    "text": lambda: maps("probability", 1, "Sigmoid"),
}


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


def at(values: np.ndarray) -> float:
    """The number of the element that covers pixel 120, 80 of the photograph."""
    rows, columns = values.shape
    return float(values[int(80.5 / 300 * rows), int(120.5 / 451 * columns)])


def over(values: np.ndarray) -> float:
    """The sum over the mask, elements that it covers in part counted in part: by averaging."""
    mask = Image.new("F", (451, 300))
    ImageDraw.Draw(mask).rectangle(BOX, fill=1)
    share = mask.resize(values.shape[::-1], Image.Resampling.BOX)
    return float((np.asarray(share) * values).sum())


# What each command explains, by model and target: made of the plain model's outputs.
NUMBERS: dict[tuple[str, str], Callable[..., float]] = {
    ("pose", "box:person/1"): lambda y: logit(y[4, 98]),
    ("pose", "output0[7,98]"): lambda y: logit(y[7, 98]),
    ("pose", "output0[5,98]"): lambda y: y[5, 98],
    ("heat", "heatmaps[0,:,:]:max"): lambda y: y[0].max(),
    ("heat", "region:0 --at"): lambda y: at(y[0]),
    ("seg", "box:hat"): lambda y, protos: logit(y[5, 164]),
    ("seg", "output0[7,164]"): lambda y, protos: y[7, 164],
    ("seg", "output1[0,:,:]:max"): lambda y, protos: protos[0].max(),
    ("text", "region:0"): lambda y: logit(y[0])[y[0] > 0.5].sum(),
    ("text", "region:0 --at"): lambda y: at(logit(y[0])),
    ("text", "region:0 --mask"): lambda y: over(logit(y[0])),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[np.ndarray]]]:
    """Each model's folder, with card, photograph and mask, and its outputs of the photograph."""
    made = {}
    for name, build in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        model = build()
        onnx.save(model, folder / f"{name}.onnx")
        if not model.metadata_props:
            (folder / f"{name}.toml").write_text(CARD)
        PHOTO.save(folder / "photo.jpg", quality=95)
        mask = Image.new("L", PHOTO.size)
        ImageDraw.Draw(mask).rectangle(BOX, fill=255)
        mask.save(folder / "mask.png")
        explainer = onnxcam.Explainer(folder / f"{name}.onnx")
        x, _ = explainer.preprocess.apply(
            np.asarray(Image.open(folder / "photo.jpg")), "NCHW", "float32"
        )
        outputs = runtime(model).run(None, {model.graph.input[0].name: x})
        made[name] = (folder, [y[0].astype(np.float64) for y in outputs])
    return made


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_explains_what_the_page_says(
    command: str, plain, call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = shlex.split(command)
    name = words[words.index("-m") + 1].removesuffix(".onnx")
    folder, outputs = plain[name]
    monkeypatch.chdir(folder)
    code, _, err = call(*words, "-o", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    [image] = json.loads((tmp_path / "out" / "explanations.json").read_text("utf-8"))["images"]
    [record] = image["explanations"]
    more = next((f" {w}" for w in words if w in ("--at", "--mask")), "")
    target = words[words.index("-t") + 1]
    right = NUMBERS[name, target + more](*outputs)
    rel = (
        2e-2 if more == " --mask" else 1e-3
    )  # edges: by averaging, or as the photograph was resized
    assert record["score"] == pytest.approx(right, rel=rel, abs=1e-4)
    assert record["note"] is None and record["peak"] is not None
    if target.startswith("box:"):
        assert record["detection"]["label"] == target[4:].split("/")[0]
        assert record["detection"]["anchor"] in (98, 164)


def test_every_number_has_a_command() -> None:
    assert len(COMMANDS) == len(NUMBERS)


def test_the_page_s_target_for_a_mask(plain) -> None:
    """Its map is the sum of the prototypes' maps, each weighed by its coefficient."""
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", PART, re.DOTALL)[1], names)
    folder, (rows, prototypes) = plain["seg"]
    coefficients = rows[7:, 164]
    explainer = onnxcam.Explainer(folder / "seg.onnx", method="hires-cam")
    [found] = explainer.explain(folder / "photo.jpg", names["Mask"](coefficients))
    logits = np.tensordot(coefficients, prototypes, 1)
    assert found.score == pytest.approx(logits[logits > 0].sum(), rel=1e-4)
    weights = {
        w.name: onnx.numpy_helper.to_array(w)
        for w in onnx.load(folder / "seg.onnx").graph.initializer
    }
    assert found.layer == "r2"
    extended = onnx.load(folder / "seg.onnx")
    extended.graph.output.append(onnx.helper.make_empty_tensor_value_info("r2"))
    x, _ = explainer.preprocess.apply(
        np.asarray(Image.open(folder / "photo.jpg")), "NCHW", "float32"
    )
    [layer] = runtime(extended).run(["r2"], {"images": x})
    # The gradient at r2: the mask, correlated with the kernels of the convolution after it.
    kernel = np.tensordot(coefficients, weights["wm"], 1)
    padded = np.pad((logits > 0).astype(np.float64), 1)
    gradient = sum(
        kernel[:, i, j, None, None] * padded[2 - i : 2 - i + 24, 2 - j : 2 - j + 24]
        for i in range(3)
        for j in range(3)
    )
    right = (gradient * layer[0]).sum(0)
    np.testing.assert_allclose(found.signed, right, atol=1e-4 * np.abs(right).max())
