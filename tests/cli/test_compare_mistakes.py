"""Mistakes in calls of ``onnxcam compare``: what is said, what is left, and that ways out work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from ..compare.conftest import make_photos
from ..compare.models import cnn, larger, renamed
from ..conftest import CARD, parse, small_cnn
from ..yolo import yolo

RNG = np.random.default_rng(0)


def two_inputs() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    return parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        net (float[N,3,16,16] image, float[N,4] question) => (float[N,5] logits) {
            c1 = Conv <pads=[1,1,1,1]> (image, w1)
            r1 = Relu (c1)
            pooled = GlobalAveragePool (r1)
            flat = Flatten (pooled)
            both = Mul (flat, question)
            logits = Gemm (both, w2)
        }
        """,
        {
            "w1": rng.normal(size=(4, 3, 3, 3)).astype("f"),
            "w2": rng.normal(size=(4, 5)).astype("f"),
        },
    )


def unlike(gemm: bool) -> onnx.ModelProto:
    """Return a network of five classes with one layer that has a twin in ``cnn``, or none."""
    head, channels = ("out = Gemm (flat, v2)", 7) if gemm else ("out = Identity (flat)", 5)
    return parse(
        f"""
        <ir_version: 7, opset_import: ["" : 13]>
        net (float[N,3,16,16] photo) => (float[N,5] out) {{
            k1 = Conv <pads=[1,1,1,1]> (photo, v1)
            a1 = Relu (k1)
            pooled_k = GlobalAveragePool (a1)
            flat = Flatten (pooled_k)
            {head}
        }}
        """,
        {
            "v1": RNG.normal(size=(channels, 3, 3, 3)).astype("f"),
            "v2": RNG.normal(size=(7, 5)).astype("f"),
        },
    )


def signal() -> onnx.ModelProto:
    return parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        net (float[N,2,64] x) => (float[N,3] logits) {
            c1 = Conv <pads=[1,1]> (x, w1)
            r1 = Relu (c1)
            pooled = GlobalAveragePool (r1)
            flat = Flatten (pooled)
            logits = Gemm (flat, w2)
        }
        """,
        {
            "w1": RNG.normal(size=(4, 2, 3)).astype("f"),
            "w2": RNG.normal(size=(4, 3)).astype("f"),
        },
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with models and photographs."""
    made = {
        "model": cnn(),
        "same": renamed(cnn()),
        "vqa": two_inputs(),
        "narrow": small_cnn(channels=3),
        "alien": unlike(False),
        "kin": unlike(True),
        "signal": signal(),
        "boxes": yolo(),
    }
    for name, model in made.items():
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    for name in ("model", "vqa"):
        (tmp_path / f"{name}.toml").write_text(CARD)
    make_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_mistakes_leave_no_file(place: Path, call) -> None:
    assert call("compare", "model.onnx", "photos", "--save", "run.npz")[0] == 0
    assert call("compare", "model.onnx", "same.onnx", "photos", "-o", "good.json")[0] == 0
    Image.new("RGB", (32, 32), "red").save("new.png")
    before = sorted(Path().rglob("*"))
    cases = [
        (("vqa.onnx", "vqa.onnx", "photos"), "it takes question float32[N, 4]. Give them: --input"),
        (("--reference", "run.npz", "same.onnx", "new.png"), "not in the recorded run"),
        (("--reference", "run.npz", "same.onnx", "photos", "new.png"), "12: new.png for one."),
        (("model.onnx", "same.onnx", "nowhere"), "nowhere: no such file or folder"),
        (("model.onnx", "same.onnx", "photos", "a.png", "b.png"), "a.png (and 1 more): no such"),
        (("model.onnx", "nowhere", "--suggest-thresholds"), "nowhere: no such file or folder"),
        (("model.onnx", "nowhere", "--save", "other.npz"), "nowhere: no such file or folder"),
        (("boxes.onnx", "model.onnx", "photos"), "of the candidate no boxes are known: 'logits'"),
        (("model.onnx", "boxes.onnx", "photos"), "is a detector, and the reference 'model.onnx'"),
        (("model.onnx", "same.onnx", "photos", "--input", "ask=1"), "no model has such an input"),
        (("model.onnx", "photos", "--save", "b.npz", "--input", "ask=1"), "no model has such an"),
        (("--reference", "run.npz", "narrow.onnx", "photos"), "record the reference again with"),
    ]
    for arguments, said in cases:
        for _ in range(2):  # the second call is told the same: no run was interrupted
            code, _, err = call("compare", *arguments)
            assert code == 2 and said in err, (arguments, code, err)
        assert sorted(Path().rglob("*")) == before, arguments


def test_the_ways_out_of_a_recorded_run_work(place: Path, call) -> None:
    call("compare", "model.onnx", "photos", "--save", "run.npz")
    against = ("compare", "--reference", "run.npz", "narrow.onnx", "photos")
    code, _, err = call(*against)
    assert code == 2 and "--layer" not in err.replace("--candidate-layer", "")
    assert call(*against, "--candidate-layer", "r2", "-o", "named.json")[0] in (0, 3)
    assert Path("named.json").is_file()
    again = ("model.onnx", "photos", "--save", "run.npz", "--overwrite", "--method", "saliency")
    assert call("compare", *again)[0] == 0
    assert call(*against, "--method", "saliency", "-o", "input.json")[0] in (0, 3)
    assert Path("input.json").is_file()


LAX = ("--min-agreement", "0", "--min-correlation", "-1", "--max-peak-shift", "1")


def test_measures_stand_where_locating_fails(place: Path, call) -> None:
    both = ("compare", "model.onnx", "alien.onnx", "photos", "--method", "saliency", "--locate")
    code, out, err = call(*both, *LAX)
    assert code == 2 and "passed" in out and "agreement" in out
    assert "no tensors that go together" in err and "stand without --locate" in err
    assert call("compare", "--rejudge", "compare.json", *LAX)[0] == 0
    code, out, err = call(*both, "--every", "--min-correlation", "1", "-o", "strict.json")
    assert code == 3 and "BROKEN" in out and "no tensors that go together" in err
    code, out, err = call(*both, *LAX, "--json", "-o", "json.json")
    found = json.loads(out)
    assert code == 2 and found["passed"] and "no tensors" in found["located"]["error"]
    assert not list(Path().rglob("*.part"))


def test_one_tensor_does_not_tell_where_models_diverge(place: Path, call) -> None:
    both = ("compare", "model.onnx", "kin.onnx", "photos", "--method", "saliency", "--locate")
    code, out, _ = call(*both, *LAX)
    assert code == 0 and "1 tensor(s) of both models go together, which is too few" in out
    assert "below 20 dB" not in out
    _, out, _ = call("compare", "model.onnx", "model.onnx", "photos", "--locate", "--overwrite")
    assert "none of 9 tensors is below 20 dB" in out


def test_tensors_of_other_sizes_are_not_said_to_agree(place: Path, call) -> None:
    Path("large.onnx").write_bytes(larger(cnn()).SerializeToString())
    _, out, _ = call("compare", "model.onnx", "large.onnx", "photos", "--locate", "--json")
    steps = json.loads(out)["located"]["steps"]
    assert {s["tensor"] for s in steps}.isdisjoint({"c1", "r1", "p1", "c2", "r2"})
    assert "logits" in {s["tensor"] for s in steps}


def test_arrays_are_taken_as_they_are(place: Path, call) -> None:
    np.save("x.npy", RNG.normal(size=(1, 2, 64)).astype("f"))
    code, out, _ = call("compare", "signal.onnx", "signal.onnx", "x.npy")
    assert code == 0 and "arrays, taken as they are" in out and "as in nothing" not in out


def test_another_card_of_the_candidate_is_warned_of(place: Path, call) -> None:
    both = ("compare", "model.onnx", "same.onnx", "photos", "--overwrite")
    same = Path("same.toml")
    same.write_text(CARD)
    assert call(*both)[2] == ""
    same.write_text("[preprocess]\ndivide = 1\nmean = 100\nstd = 50\n")
    code, _, err = call(*both)
    assert "same.onnx: is fed images prepared as in" in err and err.count("\n") == 1
    assert "--candidate-preprocess auto" in err
    code, out, err = call(*both, "--candidate-preprocess", "auto")
    assert "in its own way" in out and "is fed images" not in err
    assert "is fed images" not in call(*both, "--preprocess", "model.toml")[2]
    same.write_text("[preprocess]\ncolor = 'no colour'\n")
    assert "is fed images" not in call(*both)[2]
