"""``onnxcam compare`` of detectors, and of models with inputs besides the image."""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from PIL import Image

from ..compare.conftest import make_photos
from ..compare.models import renamed
from ..compare.test_detectors import disturbed
from ..conftest import CARD, parse, runtime, small_cnn
from ..yolo import yolo
from .test_compare_mistakes import two_inputs

JINJA = importlib.util.find_spec("jinja2") is not None
OPENVINO = importlib.util.find_spec("openvino") is not None


def put(name: str, model: onnx.ModelProto, card: bool = False) -> None:
    Path(name).write_bytes(model.SerializeToString())
    if card:
        Path(name).with_suffix(".toml").write_text(CARD)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with ten photographs; of the last a small detector sees nothing."""
    monkeypatch.chdir(tmp_path)
    for photo in make_photos(tmp_path / "photos")[9:11]:
        photo.unlink()
    return tmp_path


def test_detectors(place: Path, call) -> None:
    put("a.onnx", yolo())
    put("b.onnx", disturbed(yolo(), 0.3))
    both = ("compare", "a.onnx", "b.onnx", "photos")
    code, out, err = call(*both, "--junit", "t.xml", "--save", "run.npz", "--json")
    found = json.loads(out)
    assert code == 3 and found["reference"]["method"] == "layer-cam"
    assert found["measures"]["agreement"] == "the surest box is found again, where any is seen"
    boxes = {k: sum(row["boxes"][k] for row in found["images"]) for k in found["boxes"]}
    assert found["boxes"] == boxes and min(boxes.values()) > 0
    assert found["counts"]["nothing is detected"] == 2
    told = ElementTree.parse("t.xml").getroot()
    said = " ".join(case.findtext("system-out") or "" for case in told)
    assert "both say cup (" in said and ", candidate: no such box (" in said
    assert "nothing, candidate: " in said  # it sees boxes where the reference sees none
    code, out, _ = call("compare", "--rejudge", "compare.json")
    assert code == 3 and f"boxes  found: {boxes['found']}  missed: {boxes['missed']}" in out
    assert "nothing is detected: 2  the box is lost: 0" in out
    lax = "[mean]\nmin_agreement = 0.3\nmin_found = 0.3\nmax_confidence_drift = 0.9\n"
    Path("lax.toml").write_text(f"{lax}min_box_iou = 0.3\nmax_extra = 1\n")
    assert call("compare", "--rejudge", "compare.json", "--policy", "lax.toml")[0] == 0
    # Recorded on one machine, compared with on another; every option of a user works for boxes.
    recorded = ("compare", "--reference", "run.npz", "b.onnx", "photos", "-o", "again.json")
    assert call(*recorded)[0] == 3
    live, stored = (json.loads(Path(n).read_text()) for n in ("compare.json", "again.json"))
    assert live["images"] == stored["images"]
    assert call(*recorded, "--overwrite", "--method", "layer-cam")[0] == 3
    code, _, err = call(*recorded, "--overwrite", "--method", "grad-cam")
    assert code == 2 and "Compare with --method layer-cam" in err


def test_a_detector_with_itself_by_all_options(place: Path, call) -> None:
    put("a.onnx", yolo())
    both = ("compare", "a.onnx", "a.onnx", "photos", "--overwrite")
    code, out, err = call(*both, "--locate", "--fail-fast")
    assert code == 0 and "scores     the scores of boxes" in out and "passed" in out
    assert "is below 20 dB: there the models do not diverge" in out and not err
    code, out, _ = call("compare", "a.onnx", "photos", "--suggest-thresholds")
    assert code == 0
    Path("policy.toml").write_text(out)
    assert call(*both, "--policy", "policy.toml")[0] == 0


@pytest.mark.skipif(not OPENVINO, reason="needs OpenVINO (extra openvino)")
def test_a_detector_in_openvino(place: Path, call) -> None:
    put("a.onnx", yolo())
    code, _, err = call("compare", "a.onnx", "a.onnx", "photos", "--runtime", "openvino")
    assert code == 2 and "ReduceSum" in err  # OpenVINO wants to know its axes beforehand
    fix = shlex.split(err.partition("fix them: python ")[2])
    assert subprocess.run([sys.executable, *fix]).returncode == 0
    fixed = ("compare", "a-fixed.onnx", "a-fixed.onnx", "photos", "--runtime", "openvino")
    code, out, err = call(*fixed)
    assert code == 0 and "(OpenVINO)" in out, err
    results = json.loads(Path("compare.json").read_text())
    seen = [r["measures"]["correlation"] for r in results["images"] if "iou" in r["measures"]]
    assert min(seen) > 0.9999 and len(seen) == 8


@pytest.mark.skipif(not JINJA, reason="needs Jinja2 (extra report)")
def test_the_report_of_detectors(place: Path, call) -> None:
    put("a.onnx", yolo())
    put("b.onnx", disturbed(yolo(), 0.3))
    code, _, _ = call("compare", "a.onnx", "b.onnx", "photos", "--report", "r.html")
    page = Path("r.html").read_text("utf-8")
    assert code == 3 and "found again, " in page and "surest box" in page
    assert page.count("<article") == 10 and "predicts" not in page
    assert 'title="overlap (IoU) of the surest box in both, 0 where it is lost"' in page


def test_an_image_and_a_question(place: Path, call) -> None:
    put("a.onnx", two_inputs(), card=True)
    put("b.onnx", disturbed(two_inputs(), 0.5))
    np.save("q.npy", np.array([0.5, 2, -1, 1], "f"))
    both = ("compare", "a.onnx", "b.onnx", "photos", "--overwrite", "--input")
    code, out, _ = call(*both, "question=q.npy", "--save", "run.npz", "--locate")
    assert code in (0, 3) and "fed, too   question" in out and "layer by layer" in out
    results = json.loads(Path("compare.json").read_text())
    for row in results["images"][:3]:
        pixels = np.asarray(Image.open(row["image"]).resize((16, 16), Image.Resampling.BILINEAR))
        image = pixels.astype("f").transpose(2, 0, 1)[None] / 255 - np.float32(0.5)
        for side, model in (("reference", "a.onnx"), ("candidate", "b.onnx")):
            fed = {"image": image, "question": np.load("q.npy")[None]}
            scores = runtime(model).run(None, fed)[0][0]
            assert row[side]["target"] == scores.argmax()
    # The recorded run holds the question, which the candidate is fed.
    recorded = ("compare", "--reference", "run.npz", "b.onnx", "photos", "-o", "again.json")
    code, out, _ = call(*recorded)
    again = json.loads(Path("again.json").read_text())
    assert again["images"] == results["images"]
    code, _, err = call(*recorded, "--overwrite", "--input", "question=zeros")
    assert code == 2 and "belongs to the run that was recorded" in err and "Leave it out" in err
    assert call(*both, "question=1")[0] in (0, 3)
    other = json.loads(Path("compare.json").read_text())
    assert other["images"] != results["images"]
    # Another question is another comparison: such a run is not gone on with.
    assert other["reference"]["others"].keys() == results["reference"]["others"].keys()
    assert other["reference"]["others"] != results["reference"]["others"]
    code, _, err = call(*both, "question=1", "--input", "quest=1")
    assert code == 2 and "no model has such an input besides the image. Nearest: question" in err
    code, _, err = call(*both, "question")
    assert code == 2 and "write it as NAME=FILE.npy" in err


def test_inputs_of_other_names_are_given_by_name(place: Path, call) -> None:
    put("a.onnx", two_inputs(), card=True)
    put("b.onnx", renamed(two_inputs()))
    names = [i.name for i in onnx.load("b.onnx").graph.input]
    both = ("compare", "a.onnx", "b.onnx", "photos", "--input", "question=1")
    code, _, err = call(*both)
    assert code == 2 and f"it takes {names[1]} float32[N, 4]. Give them: --input" in err
    code, out, _ = call(*both, "--input", f"{names[1]}=1")
    assert code == 0 and "question of the reference alone" in out
    assert f"{names[1]} of the candidate alone" in out


def test_texts_are_read_by_the_references_card(place: Path, call) -> None:
    put("a.onnx", two_inputs())
    put("b.onnx", two_inputs())
    words = '[inputs.question]\ntext = "bag of words"\nwords = ["is", "it", "a", "cup"]\n'
    Path("a.toml").write_text(f"{CARD}\n{words}")
    both = ("compare", "a.onnx", "b.onnx", "photos", "--input", "question=is it a cup?")
    code, out, err = call(*both)
    assert code == 0 and "passed" in out, err


def two_scores() -> onnx.ModelProto:
    """A network with scores of five classes, and of seven others."""
    model = small_cnn()
    more = parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        more (float[N,5] logits) => (float[N,7] sevens) { sevens = Gemm (logits, w7) }
        """,
        {"w7": np.random.default_rng(6).normal(size=(5, 7)).astype("f")},
    )
    model.graph.node.extend(more.graph.node)
    model.graph.output.extend(more.graph.output)
    model.graph.initializer.extend(more.graph.initializer)
    return model


def test_the_ways_out_where_a_recorded_run_has_other_classes(place: Path, call) -> None:
    put("a.onnx", small_cnn(), card=True)
    put("b.onnx", two_scores(), card=True)
    assert call("compare", "a.onnx", "photos", "--save", "run.npz")[0] == 0
    recorded = ("compare", "--reference", "run.npz", "b.onnx", "photos", "--overwrite")
    code, _, err = call(*recorded, "--candidate-score", "sevens")
    assert code == 2 and "has 7 classes, the reference's 'logits' 5" in err
    assert "--candidate-score NAME names another tensor; or record the reference again" in err
    assert call(*recorded, "--candidate-score", "logits")[0] == 0
    again = ("compare", "b.onnx", "photos", "--save", "run.npz", "--overwrite", "--score", "sevens")
    assert call(*again)[0] == 0
    assert call(*recorded, "--candidate-score", "sevens")[0] == 0


def test_what_was_guessed_is_said(place: Path, call) -> None:
    put("a.onnx", small_cnn())
    code, out, _ = call("compare", "a.onnx", "a.onnx", "photos")
    assert code == 0 and "as in guess" not in out
    assert "images prepared by a guess (RGB over 255, less 0.485, 0.456, 0.406 over 0.229" in out
