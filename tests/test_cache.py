"""Instrumented models on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcam
from onnxcam import cache
from onnxcam.errors import ExternalDataError, ModelError
from onnxcam.methods.registry import find_method
from onnxcam.surgeon.request import Request

from .conftest import small_cnn

GRAD_CAM = find_method("grad-cam")
OF_BOXES = find_method("layer-cam")  # what the explainer asks for in detectors
REQUEST = Request({"grad-cam": GRAD_CAM}, of_boxes={"layer-cam": OF_BOXES})
KEYS = [GRAD_CAM.key(), OF_BOXES.key()]
IMAGE = np.random.default_rng(3).normal(size=(3, 16, 16)).astype("f")


def entries() -> list[Path]:
    folder = cache.cache_folder()
    return sorted(folder.iterdir()) if folder.exists() else []


def explain(path: Path, **options: object) -> onnxcam.Explanation:
    return onnxcam.Explainer(path, preprocess="unit", cache=True, **options).explain(IMAGE, 1)[0]


def test_the_second_time_is_the_first(save) -> None:
    path = save(small_cnn())
    first = explain(path)
    assert len(entries()) == 1
    second = explain(path)
    assert len(entries()) == 1
    np.testing.assert_array_equal(first.signed, second.signed)
    data, plan = cache.instrumented(path, REQUEST, KEYS, cached=True)
    assert isinstance(data, Path) and plan.layer.name == "r2"


def test_the_second_call_needs_no_surgery(save, tmp_path) -> None:
    """Neither onnx nor onnx_ir is imported when the instrumented model is on disk."""
    path = save(small_cnn(), toml="[preprocess]\ndivide = 255\n")
    program = (
        "import sys; from onnxcam.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'onnx', 'onnx_ir'} & set(sys.modules)))"
    )
    photo = onnxcam.default_photograph()
    for expected in ("['onnx', 'onnx_ir']", "[]"):
        done = subprocess.run(
            [sys.executable, "-c", program, "explain", str(photo), "-m", str(path), "-o",
             str(tmp_path / "out")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == expected


def test_options_and_content_make_the_key(save) -> None:
    path = save(small_cnn())
    explain(path)
    assert explain(path, layer="r1").layer == "r1"
    assert explain(path, score="logits").score_name == "logits"
    assert len(entries()) == 3
    before = explain(path)
    changed = small_cnn()
    weights = onnx.numpy_helper.to_array(changed.graph.initializer[4]) * 2
    changed.graph.initializer[4].CopyFrom(onnx.numpy_helper.from_array(weights, "w3"))
    save(changed)
    assert len(entries()) == 3
    np.testing.assert_allclose(explain(path).signed, 2 * before.signed, rtol=1e-5)
    assert len(entries()) == 4


def test_without_the_cache_nothing_is_written(save, tmp_path) -> None:
    path = save(small_cnn())
    onnxcam.Explainer(path, preprocess="unit")
    subprocess.run(
        [sys.executable, "-m", "onnxcam", "explain", str(onnxcam.default_photograph()), "-m",
         str(path), "--no-cache", "-o", str(tmp_path / "out"), "--preprocess", "unit"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert entries() == []


@pytest.mark.parametrize("damage", ["model", "zeros", "plan", "plan-missing", "not-json"])
def test_a_damaged_entry_is_made_again(save, damage: str) -> None:
    path = save(small_cnn())
    expected = explain(path)
    [entry] = entries()
    if damage == "model":
        (entry / "model.onnx").write_bytes(b"short")
    elif damage == "zeros":  # of the right size, as after a power failure
        model = entry / "model.onnx"
        model.write_bytes(bytes(model.stat().st_size))
    elif damage == "plan":
        (entry / "plan.json").write_text('{"bytes": 5}')
    elif damage == "plan-missing":
        (entry / "plan.json").unlink()
    else:
        (entry / "plan.json").write_text("{")
    for _ in range(2):
        np.testing.assert_array_equal(explain(path).signed, expected.signed)
    data, _ = cache.instrumented(path, REQUEST, KEYS, cached=True)
    assert isinstance(data, Path)


def test_a_cache_that_cannot_be_written_is_passed_over(save, tmp_path, monkeypatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("ONNXCAM_CACHE", str(blocked / "cache"))
    path = save(small_cnn())
    assert explain(path).layer == explain(path).layer == "r2"


def test_outer_weights_are_looked_at_again(tmp_path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save_model(
        small_cnn(), model, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    first = explain(model)
    np.testing.assert_array_equal(explain(model).signed, first.signed)
    assert len(entries()) == 1
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ExternalDataError, match=r"'w.bin', which is missing"):
        explain(model)


def test_errors_are_not_cached(save) -> None:
    broken = save(b"not a model")
    for _ in range(2):
        with pytest.raises(ModelError, match="not an ONNX model"):
            explain(broken)
    assert entries() == []


def test_concurrent_writers(save, tmp_path) -> None:
    """Several processes meet the same new model at once."""
    path = save(small_cnn())
    command = [sys.executable, "-m", "onnxcam", "explain", str(onnxcam.default_photograph())]
    runs = [
        subprocess.Popen(
            [*command, "-m", str(path), "--preprocess", "unit", "-o", str(tmp_path / str(i))],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ.copy(),
        )
        for i in range(6)
    ]  # fmt: skip
    for run in runs:
        _, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
    assert len(entries()) == 1
    assert sorted(f.name for f in entries()[0].iterdir()) == ["model.onnx", "plan.json"]


def test_a_model_changed_while_it_is_read_is_not_stored(save, monkeypatch) -> None:
    path = save(small_cnn())
    original, other = path.read_bytes(), small_cnn(classes=7).SerializeToString()
    make = cache._make

    def slow(*arguments: object) -> object:
        path.write_bytes(other)
        return make(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "_make", slow)
    assert cache.instrumented(path, REQUEST, KEYS, cached=True)[1].classes == 7
    monkeypatch.setattr(cache, "_make", make)
    assert entries() == []
    path.write_bytes(original)
    assert cache.instrumented(path, REQUEST, KEYS, cached=True)[1].classes == 5


def test_only_its_own_entries_are_removed(save, monkeypatch) -> None:
    foreign = cache.cache_folder() / "photographs"
    foreign.mkdir(parents=True)
    (foreign / "plan.json").write_bytes(bytes(5000))
    os.utime(foreign, (1, 1))
    monkeypatch.setattr(cache, "MOST_BYTES", 1)
    explain(save(small_cnn()))
    assert foreign.exists()


def test_the_oldest_entries_go_first(save, monkeypatch) -> None:
    path = save(small_cnn())
    explain(path)
    [oldest] = entries()
    os.utime(oldest, (1, 1))
    size = sum(f.stat().st_size for f in oldest.iterdir())
    monkeypatch.setattr(cache, "MOST_BYTES", int(1.5 * size))
    explain(path, layer="r1")
    assert len(entries()) == 1 and oldest not in entries()
