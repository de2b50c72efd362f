"""``onnxcam compare`` as a user calls it."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from onnxcam.cli.compare import compare
from onnxcam.compare.policy import DEFAULT_MEAN

from ..compare.conftest import make_photos
from ..compare.models import cnn, renamed, shuffled, without_gradient
from ..conftest import CARD, small_cnn

JINJA = importlib.util.find_spec("jinja2") is not None
OPENVINO = importlib.util.find_spec("openvino") is not None


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with models and photographs."""
    made = {"model": cnn(), "same": renamed(cnn()), "broken": shuffled(cnn())}
    for name, model in made.items():
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "model.toml").write_text(CARD)
    make_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_and_itself_pass(place: Path, call) -> None:
    code, out, err = call("compare", "model.onnx", "model.onnx", "photos")
    assert (code, err) == (0, "")
    assert "by name" in out and "passed" in out and "same answer, different reason: 0" in out
    assert "kept   mean agreement 1.0000 (wanted >= 0.85)" in out
    assert "kept   mean correlation 1.0000 (wanted >= 0.9)" in out
    assert "kept   mean peak_shift 0.0000 (wanted <= 0.1)" in out
    assert Path("compare.json").is_file() and not Path("compare.json.part").exists()


def test_shuffled_weights_fail_with_the_default_thresholds(place: Path, call) -> None:
    code, out, err = call("compare", "model.onnx", "broken.onnx", "photos", "--junit", "t.xml")
    assert code == 3 and "BROKEN mean correlation" in out
    assert "the worst images:" in err and err.count("photos/") == 5
    suite = ElementTree.parse("t.xml").getroot()
    assert len(suite) == 3 + 12 and int(suite.attrib["failures"]) >= 1
    results = json.loads(Path("compare.json").read_text())
    worst = sorted(results["images"], key=lambda r: r["measures"].get("correlation", 2))[0]
    assert worst["image"] in err


def test_json_and_rejudged_results_say_the_same(place: Path, call) -> None:
    code, out, _ = call("compare", "model.onnx", "broken.onnx", "photos", "--json")
    first = json.loads(out)
    assert code == 3 and not first["passed"] and len(first["images"]) == 12
    code, out, _ = call("compare", "--rejudge", "compare.json", "--json")
    assert code == 3 and json.loads(out) == first
    lax = ("--min-agreement", "0", "--min-correlation", "-1", "--max-peak-shift", "1")
    code, out, _ = call("compare", "--rejudge", "compare.json", *lax)
    assert code == 0 and "passed" in out
    code, _, err = call("compare", "--rejudge", "compare.json", "photos")
    assert code == 2 and "takes no models" in err
    assert call("compare", "--rejudge", "compare.json", "--save", "x.npz")[0] == 2


def test_every_image_and_a_policy(place: Path, call) -> None:
    call("compare", "model.onnx", "same.onnx", "photos")
    again = ("compare", "--rejudge", "compare.json")
    assert call(*again, "--every", "--min-correlation", "0.99")[0] == 0
    code, _, err = call(*again, "--every")
    assert code == 2 and "--min-correlation for one" in err
    Path("policy.toml").write_text("[mean]\nmin_top5 = 1\n[every]\nmax_peak_shift = 0.01\n")
    code, out, _ = call(*again, "--policy", "policy.toml")
    assert code == 0 and "every image's peak_shift" in out
    assert call(*again, "--policy", "policy.toml", "--min-agreement", "0.5")[0] == 2
    for option, value in (("--min-agreement", "1.5"), ("--max-peak-shift", "-1")):
        code, _, err = call(*again, option, value)
        assert code == 2 and "must be 0 to 1" in err


def test_recorded_runs(place: Path, call) -> None:
    code, out, _ = call("compare", "model.onnx", "photos", "--save", "run.npz")
    assert code == 0 and "12 images recorded in run.npz" in out
    call("compare", "model.onnx", "broken.onnx", "photos", "-o", "live.json")
    code, _, _ = call("compare", "--reference", "run.npz", "broken.onnx", "photos")
    assert code == 3
    live, stored = (json.loads(Path(n).read_text()) for n in ("live.json", "compare.json"))
    assert live["images"] == stored["images"]
    code, _, err = call("compare", "model.onnx", "photos", "--save", "run.npz")
    assert code == 2 and "--overwrite" in err
    assert call("compare", "model.onnx", "photos", "--save", "run.npz", "--overwrite")[0] == 0
    both = ("compare", "model.onnx", "same.onnx", "photos", "-o", "c.json")
    assert call(*both, "--save", "both.npz")[0] == 0
    code, _, _ = call("compare", "--reference", "both.npz", "same.onnx", "photos", "-o", "d.json")
    assert code == 0
    Image.new("RGB", (32, 32), "red").save("photos/new.png")
    code, _, err = call("compare", "--reference", "run.npz", "same.onnx", "photos", "-o", "e.json")
    assert code == 2 and "not in the recorded run" in err
    recorded = ("compare", "--reference", "run.npz", "same.onnx", "photos")
    code, _, err = call(*recorded, "--layer", "r1")
    assert code == 2 and "belongs to the run that was recorded" in err
    code, _, err = call(*recorded, "--locate")
    assert code == 2 and "not a recorded run" in err


def test_a_recording_is_whole_or_is_not_there(place: Path, call) -> None:
    Path("photos/zz.png").write_bytes(b"no picture")
    code, _, err = call("compare", "model.onnx", "photos", "--save", "run.npz")
    assert code == 2 and "Nothing was recorded" in err and not Path("run.npz").exists()


def test_an_image_that_cannot_be_read_fails_the_verdict(place: Path, call) -> None:
    Path("photos/zz.png").write_bytes(b"no picture")
    code, out, err = call("compare", "model.onnx", "same.onnx", "photos")
    assert code == 3 and "failed: 1" in out and "zz.png" in err
    assert "kept   mean agreement" in out


def test_fail_fast(place: Path, call) -> None:
    for number in range(12, 40):
        shutil.copy(f"photos/{number % 12:02}.png", f"photos/{number}.png")
    arguments = ("compare", "model.onnx", "broken.onnx", "photos", "--fail-fast")
    code, out, _ = call(*arguments, "--every", "--min-correlation", "0.99")
    assert code == 3 and "stopped early" in out
    assert len(json.loads(Path("compare.json").read_text())["images"]) == 8  # one batch


def test_locate(place: Path, call) -> None:
    code, out, _ = call("compare", "model.onnx", "broken.onnx", "photos", "--locate", "-q")
    assert (code, out) == (3, "")
    code, out, _ = call("compare", "model.onnx", "broken.onnx", "photos", "--locate", "--overwrite")
    assert code == 3 and "c1 (Conv) <- first below 20 dB" in out and "nodes_to_exclude = " in out
    code, out, _ = call(
        "compare", "model.onnx", "model.onnx", "photos", "--locate", "--json", "--overwrite"
    )
    located = json.loads(out)["located"]
    assert code == 0 and located["first"] is None and len(located["steps"]) == 9


def test_suggested_thresholds_are_a_policy(place: Path, call) -> None:
    code, out, _ = call("compare", "model.onnx", "photos", "--suggest-thresholds")
    assert code == 0
    Path("policy.toml").write_text(out)
    policy = ("--policy", "policy.toml")
    assert call("compare", "model.onnx", "same.onnx", "photos", *policy)[0] == 0
    assert call("compare", "model.onnx", "broken.onnx", "photos", *policy, "--overwrite")[0] == 3
    code, _, err = call("compare", "model.onnx", "same.onnx", "photos", "--suggest-thresholds")
    assert code == 2 and "REFERENCE alone" in err


def test_noise_is_warned_of(place: Path, call) -> None:
    folder = Path("noise")
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    _, _, err = call("compare", "model.onnx", "same.onnx", "noise")
    assert "look like random noise" in err and "Give photographs" in err
    _, _, err = call("compare", "model.onnx", "same.onnx", "photos", "--overwrite")
    assert "noise" not in err


def test_bad_calls_leave_nothing_behind(place: Path, call) -> None:
    made = {
        "seven": small_cnn(classes=7),
        "narrow": small_cnn(channels=3),
        "signs": without_gradient(),
    }
    for name, model in made.items():
        Path(f"{name}.onnx").write_bytes(model.SerializeToString())
    Path("empty").mkdir()
    Path("text.onnx").write_text("no model")
    Path("damaged.json").write_text('{"kind": "comp')
    Path("damaged.npz").write_bytes(b"PK\x03\x04")
    Path("a-file").write_text("")
    before = sorted(Path().rglob("*"))
    good = ("compare", "model.onnx", "same.onnx", "photos")
    cases = [
        (("compare", "model.onnx", "seven.onnx", "photos"), "has 7 classes"),
        (("compare", "model.onnx", "narrow.onnx", "photos"), "no layer goes with"),
        (
            ("compare", "model.onnx", "signs.onnx", "photos", "--candidate-layer", "r1"),
            "signs.onnx",
        ),
        (("compare", "model.onnx", "same.onnx", "empty"), "no images in this directory"),
        (("compare", "model.onnx", "same.onnx"), "no images"),
        (("compare", "model.onnx", "photos"), "REFERENCE and CANDIDATE"),
        (("compare",), "REFERENCE and CANDIDATE"),
        (("compare", "model.onnx", "text.onnx", "photos"), "text.onnx"),
        (("compare", "model.onnx", "absent.onnx", "photos"), "absent.onnx"),
        ((*good, "--layer", "nothing"), "nothing"),
        ((*good, "--candidate-layer", "nothing"), "nothing"),
        ((*good, "--min-correlation", "2"), "must be -1 to 1"),
        ((*good, "--policy", "absent.toml"), "cannot be read as a policy"),
        ((*good, "-o", "a-file/compare.json"), "is a file"),
        ((*good, "--junit", "photos"), "is not a file"),
        ((*good, "--report", "a-file"), "exists. --overwrite replaces it"),
        ((*good, "--resume", "--overwrite"), "goes without"),
        ((*good, "--candidate-provider", "NoProvider"), "NoProvider"),
        (("compare", "--rejudge", "damaged.json"), "damaged"),
        (("compare", "--rejudge", "absent.json"), "cannot be read"),
        (("compare", "--reference", "damaged.npz", "same.onnx", "photos"), "damaged"),
        (("compare", "--reference", "absent.npz", "same.onnx", "photos"), "cannot be read"),
        (("compare", "--reference", "damaged.npz", "photos"), "CANDIDATE"),
    ]
    for arguments, said in cases:
        code, _, err = call(*arguments)
        plain = " ".join(err.replace("│", " ").split())
        assert code == 2 and said in plain, (arguments, code, err)
        assert sorted(Path().rglob("*")) == before, arguments


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(place: Path, call) -> None:
    Path("locked").mkdir(mode=0o500)
    code, _, err = call("compare", "model.onnx", "same.onnx", "photos", "-o", "locked/c.json")
    assert code == 2 and "not writable" in err


def test_an_interrupted_run_goes_on(place: Path, call) -> None:
    arguments = ("compare", "model.onnx", "broken.onnx", "photos")
    call(*arguments)
    whole = json.loads(Path("compare.json").read_text())
    call(*arguments, "-o", "other.json")
    Path("compare.json").unlink()
    code, _, err = call(*arguments, "--resume")  # nothing was interrupted: from the beginning
    assert code == 3 and json.loads(Path("compare.json").read_text()) == whole
    code, _, err = call(*arguments, "--resume")
    assert code == 2 and "nothing to resume" in err


KILLED = """
import os, sys
import onnxcam.compare.journal as journal
from onnxcam.cli import main
add = journal.Journal.add
def dying(self, rows):
    add(self, rows)
    with self.path.open("a") as file:
        file.write('{"image": "cut of')
    os.kill(os.getpid(), 9)
journal.Journal.add = dying
sys.argv = ["onnxcam", *sys.argv[1:]]
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_killed_run_leaves_no_report_and_resumes(place: Path, call) -> None:
    arguments = ("compare", "model.onnx", "broken.onnx", "photos")
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments, "--junit", "t.xml"])
    assert killed.returncode == -signal.SIGKILL
    assert not Path("compare.json").exists() and not Path("t.xml").exists()
    code, _, err = call(*arguments)
    assert code == 2 and "--resume goes on" in err
    code, _, err = call("compare", "model.onnx", "same.onnx", "photos", "--resume")
    assert code == 2 and "other models" in err
    start = len(Path("compare.json.part").read_text().splitlines())
    assert start == 1 + 8 + 1
    code, out, _ = call(*arguments, "--resume")
    assert code == 3 and "12 images" in out and not Path("compare.json.part").exists()
    call(*arguments, "-o", "whole.json")
    resumed, whole = (json.loads(Path(n).read_text()) for n in ("compare.json", "whole.json"))
    assert resumed == whole


@pytest.mark.skipif(not JINJA, reason="needs Jinja2 (extra report)")
def test_the_report(place: Path, call) -> None:
    code, _, _ = call("compare", "model.onnx", "broken.onnx", "photos", "--report", "r.html")
    first = Path("r.html").read_text("utf-8")
    assert code == 3 and "Failed" in first and first.count("<article") == 12
    again = ("compare", "--rejudge", "compare.json", "--report", "again.html")
    assert call(*again)[0] == 3
    assert Path("again.html").read_text("utf-8") == first


@pytest.mark.skipif(JINJA, reason="Jinja2 is installed")
def test_without_jinja_nothing_is_run(place: Path, call) -> None:
    arguments = ("compare", "model.onnx", "same.onnx", "photos")
    code, _, err = call(*arguments, "--report", "r.html")
    assert code == 2 and "onnxcam[report]" in err and not Path("compare.json").exists()
    assert call(*arguments)[0] == 0


def test_openvino(place: Path, call) -> None:
    arguments = ("compare", "model.onnx", "model.onnx", "photos", "--runtime", "openvino")
    code, out, err = call(*arguments)
    if not OPENVINO:
        assert code == 2 and "pip install onnxcam[openvino]" in err
        return
    assert code == 0 and "(OpenVINO)" in out
    results = json.loads(Path("compare.json").read_text())
    assert min(r["measures"]["correlation"] for r in results["images"]) > 0.9999


def test_explain_imports_nothing_of_it() -> None:
    code = "import sys, onnxcam.cli, onnxcam.explainer; print([m for m in sys.modules if 'onnxcam.compare' in m])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_the_help_names_the_defaults() -> None:
    defaults = inspect.signature(compare).parameters
    said = {
        n: get_type_hints(compare, include_extras=True)[n].__metadata__[0].help
        for n in DEFAULT_MEAN
    }
    assert all(said[n].endswith(f"[{v:g}]") for n, v in DEFAULT_MEAN.items())
    assert all(defaults[n].default is None for n in DEFAULT_MEAN)
