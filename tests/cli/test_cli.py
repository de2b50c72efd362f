"""The command line on good and on bad input: messages, exit codes, what is written."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

import onnxcam

from ..conftest import parse, shared, small_cnn
from .conftest import PIXELS


def test_explain_a_folder(folder: Path, call) -> None:
    code, out, err = call("explain", "photos", "-m", "model.onnx", "-t", "dog", "-t", "top:1")
    assert (code, err) == (0, "")
    assert "score  logits (before Softmax of the output 'probabilities')" in out
    document = json.loads((folder / "onnxcam-out" / "explanations.json").read_text())
    assert [i["image"] for i in document["images"]] == ["photos/a.png", "photos/more/a.png"]
    names = [e["overlay"] for i in document["images"] for e in i["explanations"]]
    assert len(set(names)) == 4 and names[0] == "a-3-dog.jpg" and names[2] == "a-3-dog-2.jpg"
    for name in names:
        assert Image.open(folder / "onnxcam-out" / name).size == (50, 30)
    assert document["model"]["layer"] == "r2"
    again, _, _ = call("explain", ".", "-m", "model.onnx")  # overlays are not explained again
    assert again == 0
    document = json.loads((folder / "onnxcam-out" / "explanations.json").read_text())
    assert len(document["images"]) == 2


def test_patterns_formats_arrays_json(folder: Path, call) -> None:
    code, out, _ = call(
        "explain", "photos/**/*.png", "-m", "model.onnx", "-o", "out", "--format", "png",
        "--arrays", "--json", "--provider", "cpu", "--layer", "-1",
    )  # fmt: skip
    assert code == 0
    document = json.loads(out)
    assert document["model"]["layer"] == "r1"
    first = document["images"][0]["explanations"][0]
    assert Image.open(folder / "out" / first["overlay"]).format == "PNG"
    with np.load(folder / "out" / first["arrays"]) as arrays:
        assert arrays["signed"].shape == (16, 16)
    assert json.loads((folder / "out" / "explanations.json").read_text()) == document


def test_bad_images_are_skipped_and_the_rest_is_done(folder: Path, call) -> None:
    (folder / "photos" / "empty.jpg").touch()
    whole = folder / "whole.jpg"
    Image.fromarray(PIXELS).save(whole)
    (folder / "photos" / "cut.jpg").write_bytes(whole.read_bytes()[:700])
    code, out, err = call("explain", "photos", "gone.png", "-m", "model.onnx")
    assert code == 1
    assert "skipped: photos/empty.jpg: the file is empty" in err
    assert "skipped: photos/cut.jpg: cannot be decoded" in err
    assert "skipped: gone.png: no such file" in err
    assert "3 of 5 images failed." in err
    document = json.loads((folder / "onnxcam-out" / "explanations.json").read_text())
    assert len(document["images"]) == 2
    assert {f["image"] for f in document["failed"]} == {
        "photos/cut.jpg",
        "photos/empty.jpg",
        "gone.png",
    }


def nan_weights() -> onnx.ModelProto:
    model = small_cnn()
    weights = np.full((8, 4, 3, 3), np.nan, np.float32)
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weights, "w2"))
    return model


def text_model() -> onnx.ModelProto:
    return parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        text (int64[N,16] tokens) => (float[N,2] scores) {
            f = Cast <to=1> (tokens)
            scores = MatMul (f, w)
        }
        """,
        {"w": np.ones((16, 2), np.float32)},
    )


def external(folder: Path, location: str) -> onnx.ModelProto:
    (folder / "w.bin").unlink(missing_ok=True)
    onnx.save_model(
        small_cnn(), folder / "split.onnx", save_as_external_data=True, location="w.bin",
        size_threshold=0,
    )  # fmt: skip
    model = onnx.load(folder / "split.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    return model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "gone.onnx"], "gone.onnx: no such file"),
        (["-m", "photos"], "is a directory"),
        (["-m", "photos/a.png"], "not an ONNX model, or cut short"),
        (["-m", "cut.onnx"], "not an ONNX model, or cut short"),
        (["-m", "text.onnx"], "no input takes an image"),
        (["-m", "nan.onnx"], "The weights 'w2' hold NaN"),
        (["-m", "missing.onnx"], "'lost.bin', which is missing"),
        (["-m", "outside.onnx"], "point outside the folder ('../w.bin')"),
        (["-m", "absolute.onnx"], "absolute path '/etc/passwd'"),
        (
            ["-m", "model.onnx", "--layer", "r22"],
            "layer 'r22': no such tensor or node. Nearest: r2",
        ),
        (["-m", "model.onnx", "--layer", "flat"], "without spatial axes"),
        (["-m", "model.onnx", "--layer", "-9"], "there is no such layer"),
        (["-m", "model.onnx", "--score", "logit"], "no such tensor. Nearest: logits"),
        (["-m", "model.onnx", "-t", "dogg"], "no such label. Nearest: dog"),
        (["-m", "model.onnx", "-t", "CAT"], "is ambiguous: 2 (cat), 4 (cat)"),
        (["-m", "model.onnx", "-t", "5"], "target 5 is out of range: classes count from 0 to 4"),
        (["-m", "model.onnx", "--preprocess", "unitt"], "neither a known card nor a file"),
        (["-m", "model.onnx", "--labels", "gone.txt"], "labels 'gone.txt': no such file"),
        (["-m", "model.onnx", "--provider", "tpu"], "provider 'tpu' is not in this ONNX Runtime"),
        (["-m", "model.onnx", "-o", "cut.onnx/out"], "is a file"),
        (["-m", "model.onnx", "--format", "bmp"], "'bmp' is not one of"),
        (["-m", "model.onnx", "--frobnicate"], "No such option"),
    ],
)
def test_mistakes_end_with_2_and_write_nothing(
    folder: Path, call, arguments: list[str], message: str
) -> None:
    whole = small_cnn().SerializeToString()
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    for name, model in {
        "text": text_model(),
        "nan": nan_weights(),
        "missing": external(folder, "lost.bin"),
        "outside": external(folder, "../w.bin"),
        "absolute": external(folder, "/etc/passwd"),
    }.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    before = sorted(folder.rglob("*"))
    code, _, err = call("explain", "photos/a.png", *arguments)
    assert code == 2
    assert message in err.replace("│", "").replace("\n", " ") or message in err
    assert sorted(folder.rglob("*")) == before


def test_folders_and_patterns_without_images(folder: Path, call) -> None:
    (folder / "nothing").mkdir()
    code, _, err = call("explain", "nothing", "-m", "model.onnx")
    assert code == 2 and "nothing: no images in this directory" in err
    code, _, err = call("explain", "*.gif", "-m", "model.onnx")
    assert code == 2 and "no file matches this pattern" in err
    assert not (folder / "onnxcam-out").exists()


def test_a_directory_that_is_not_writable(folder: Path, call) -> None:
    """Even root cannot make a directory in /proc."""
    code, _, err = call("explain", "photos", "-m", "model.onnx", "-o", "/proc/out")
    assert code == 2
    assert "/proc/out" in err and ("is not writable" in err or "cannot be written" in err)


def test_a_guess_is_a_warning_with_the_way_out(folder: Path, call) -> None:
    (folder / "model.toml").unlink()
    code, _, err = call("explain", "photos/a.png", "-m", "model.onnx")
    assert code == 0
    [line] = err.splitlines()
    assert line.startswith("onnxcam: warning: model.onnx: guessed that its images are RGB with ")
    assert line.endswith("If not: --preprocess NAME|FILE. (--verbose says more)")
    code, _, err = call("explain", "photos/a.png", "-m", "model.onnx", "--verbose")
    assert code == 0 and len(err.splitlines()) == 3
    assert "'onnxcam inspect model.onnx --try IMAGE' tries them" in err


def test_no_guess_where_only_ready_arrays_are_given(folder: Path, call) -> None:
    (folder / "model.toml").unlink()
    np.save(folder / "ready.npy", np.zeros((3, 16, 16), np.float32))
    np.save(folder / "pixels.npy", np.zeros((16, 16, 3), np.uint8))
    code, out, err = call("explain", "ready.npy", "-m", "model.onnx")
    assert code == 0 and err == ""
    assert "input  taken as it is" in out and "prepared" not in out
    for prepared in (["pixels.npy"], ["ready.npy", "photos/a.png"]):
        code, out, err = call("explain", *prepared, "-m", "model.onnx")
        assert code == 0 and "guessed that its images are RGB" in err
        assert "images prepared as in guess" in out


def test_inspect(folder: Path, call) -> None:
    code, out, _ = call("inspect", "model.onnx")
    assert code == 0
    for line in (
        "opset     13, IR 7, 9 nodes",
        "input     image float32[N, 3, 16, 16] (image)",
        "score     logits float32[N, 5]",
        "before Softmax (producing 'probabilities')",
        "-1  r1 float32[N, 4, 16, 16]  stride 1x1",
        "*  auto  r2 float32[N, 8, 8, 8]  stride 2x2",
        "no rule   none",
    ):
        assert line in out, out
    code, out, _ = call("inspect", "model.onnx", "--json")
    assert code == 0 and json.loads(out)["default"] == "r2"
    code, _, err = call("inspect", "gone.onnx")
    assert code == 2 and "gone.onnx: no such file" in err


def test_inspect_names_what_has_no_rule(folder: Path, call) -> None:
    model = small_cnn()
    pooling = next(n for n in model.graph.node if n.op_type == "GlobalAveragePool")
    pooling.op_type, pooling.domain = "GatedAdd", "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    (folder / "odd.onnx").write_bytes(model.SerializeToString())
    code, out, _ = call("inspect", "odd.onnx")
    assert code == 0
    assert "no gradient rule between the default layer and the score for: " in out
    assert "com.microsoft.GatedAdd" in out


def test_quantized_models_are_explained(folder: Path, call) -> None:
    path = shared("models", "mobilenetv2-qlinear.onnx")
    code, out, err = call("explain", "photos/a.png", "-m", str(path))
    assert (code, err) == (0, "")
    assert "697_quantized:decoded" in out


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("demo")
    assert code == 0
    assert "tiger cat" in out and "onnxcam-demo/chelsea-282-tiger-cat.png" in out
    overlay = Image.open(tmp_path / "onnxcam-demo" / "chelsea-282-tiger-cat.png")
    assert overlay.size == (451, 300)
    assert len(list((tmp_path / "onnxcam-demo").glob("*.png"))) == 5


def test_doctor(call) -> None:
    code, out, _ = call("doctor", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["kernels"] == "native" and "CPUExecutionProvider" in report["providers"]
    code, out, _ = call("doctor")
    assert code == 0 and "kernels    native" in out


def test_version_and_help(call) -> None:
    code, out, _ = call("--version")
    assert code == 0 and out.strip() == f"onnxcam {onnxcam.__version__}"
    code, out, _ = call("explain", "--help")
    assert code == 0 and "--provider" in out


def test_without_a_runtime(folder: Path) -> None:
    """A copy of the environment, by links, that lacks ONNX Runtime."""
    packages = folder / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.lower().startswith("onnxruntime"):
            (packages / entry.name).symlink_to(entry)
    program = (
        f"import site, sys; site.addsitedir({str(packages)!r}); "
        "from onnxcam.cli import main; sys.argv[0] = 'onnxcam'; main()"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", "-I", "-c", program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert site.ENABLE_USER_SITE is not None
    done = run("explain", "photos/a.png", "-m", "model.onnx")
    assert done.returncode == 2, done.stderr
    assert (
        "ONNX Runtime is not installed. Install it with 'pip install onnxcam[cpu]'" in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not (folder / "onnxcam-out").exists()
    done = run("doctor")
    assert done.returncode == 0 and "pip install onnxcam[cpu]" in done.stdout


def test_reference_kernels_give_the_same_pictures(folder: Path) -> None:
    for name in ("native", "reference"):
        subprocess.run(
            [sys.executable, "-m", "onnxcam", "explain", "photos/a.png", "-m", "model.onnx",
             "-o", name, "--format", "png"],
            env={**os.environ, "ONNXCAM_KERNELS": name},
            check=True,
            capture_output=True,
        )  # fmt: skip
    [one] = (folder / "native").glob("*.png")
    [other] = (folder / "reference").glob("*.png")
    difference = np.asarray(Image.open(one)).astype(int) - np.asarray(Image.open(other))
    assert np.abs(difference).mean() < 0.6


def test_a_bad_image_in_the_middle_loses_nothing(folder: Path, call) -> None:
    """One picture that no format holds, one image on which the model fails."""
    model = parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        net (float[N,3,16,16] image) => (float[N,4] scores) {
            mean = ReduceMean <axes=[1,2,3]> (image)
            scaled = Div (image, mean)
            maps = Conv (scaled, w)
            relu = Relu (maps)
            pooled = GlobalAveragePool (relu)
            flat = Flatten (pooled)
            scores = MatMul (flat, head)
        }
        """,
        {
            "w": np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype("f"),
            "head": np.random.default_rng(2).normal(size=(4, 4)).astype("f"),
        },
    )
    (folder / "divides.onnx").write_bytes(model.SerializeToString())
    Image.new("RGB", (20, 20)).save(folder / "photos" / "black.png")
    Image.new("RGB", (17000, 2), "red").save(folder / "photos" / "wide.png")
    code, _, err = call(
        "explain", "photos", "-m", "divides.onnx", "--preprocess", "unit", "--format", "webp"
    )
    assert code == 1
    assert "skipped: photos/black.png: divides.onnx: the " in err and "not finite" in err
    assert "WebP holds at most 16383 pixels a side" in err
    document = json.loads((folder / "onnxcam-out" / "explanations.json").read_text())
    assert [i["image"] for i in document["images"]] == ["photos/a.png", "photos/more/a.png"]
    assert len(document["failed"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [["--layer=--3"], ["--layer=²"], ["--target=--5"], ["--target=²"], ["--target=top:²"]],
)
def test_typing_mistakes(folder: Path, call, arguments: list[str]) -> None:
    code, _, err = call("explain", "photos/a.png", "-m", "model.onnx", *arguments)
    assert code == 2 and err.startswith("onnxcam: error: ")


def test_panoramas_do_not_fill_the_memory(folder: Path, call) -> None:
    """One pixel high, and the crop of it that the network sees is small."""
    Image.new("RGB", (20000, 1), "red").save(folder / "thin.png")
    code, _, _ = call("explain", "thin.png", "--arrays")
    assert code == 0
    [arrays] = (folder / "onnxcam-out").glob("*.npz")
    with np.load(arrays) as found:
        assert found["heatmap"].shape == (1, 20000) and found["visible"].sum() >= 1
