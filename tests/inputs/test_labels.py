"""Labels: where they come from, and that their number is the model's."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcam
from onnxcam.errors import LabelsError, TargetError
from onnxcam.inputs.labels import metadata_labels, parse_labels, read_labels
from onnxcam.targets.classes import resolve

from ..conftest import small_cnn

IMAGE = np.zeros((3, 16, 16), np.float32)


@pytest.mark.parametrize(
    "text",
    ["['a', 'b', 'c']", "('a', 'b', 'c')", '["a", "b", "c"]', "{0: 'a', 2: 'c', 1: 'b'}",
     '{"10": "k"}', '{"a": 0, "c": 2, "b": 1}', "{'id2label': {'0': 'a', '1': 'b', '2': 'c'}}"],
)  # fmt: skip
def test_metadata_and_files_are_read_alike(text: str) -> None:
    found = metadata_labels({"names": text})
    if "10" in text:  # a gap would shift the names
        assert found is None
        with pytest.raises(ValueError, match="the indices are not 0 to 0"):
            parse_labels(text)
        return
    assert found == ("a", "b", "c")
    if not text.startswith("("):  # of a file this is a line
        assert parse_labels(text) == found


def test_a_later_key_of_the_metadata() -> None:
    assert metadata_labels({"names": "[broken", "classes": "['a']"}) == ("a",)
    assert metadata_labels({"names": "plain"}) is None


def test_known_lists() -> None:
    labels = read_labels("imagenet-1k")
    assert len(labels) == 1000 and labels[281] == "tabby"
    assert read_labels("imagenet-1001") == ("background", *labels)
    with pytest.raises(LabelsError, match=r"no such file.*imagenet-1k, imagenet-1001. Nearest"):
        read_labels("imagenet-1k0")
    classes = onnxcam.Explainer(onnxcam.default_model(), labels="imagenet-1k").labels
    assert classes == labels


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("imagenet-1k").write_text("a\nb\n")
    assert read_labels("imagenet-1k") == ("a", "b")


def _named(*names: str) -> onnx.ModelProto:
    model = small_cnn()
    model.metadata_props.add(key="names", value=str(list(names)))
    return model


def test_metadata_of_another_length() -> None:
    """An error; a warning where the score was named, which may be another output's."""
    with pytest.raises(LabelsError, match="has 2 labels, and 'logits' has 5 classes"):
        onnxcam.Explainer(_named("a", "b"), preprocess="unit")
    with pytest.warns(UserWarning, match="has 2 labels, and 'logits' has 5 classes"):
        explainer = onnxcam.Explainer(_named("a", "b"), preprocess="unit", score="logits")
    assert explainer.labels is None
    explainer = onnxcam.Explainer(_named(*"abcde"), preprocess="unit")
    assert explainer.labels == tuple("abcde")


def test_a_card_of_another_length(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(small_cnn().SerializeToString())
    path.with_suffix(".toml").write_text('[labels]\nnames = ["a", "b"]')
    with pytest.raises(LabelsError, match=r"net.toml: has 2 labels, and 'logits' has 5 classes"):
        onnxcam.Explainer(path, preprocess="unit")
    assert onnxcam.Explainer(path, preprocess="unit", labels=list("abcde")).labels


def test_labels_of_a_known_card_are_passed_over() -> None:
    """``torchvision`` says how images are prepared; a model of five classes has others."""
    with pytest.raises(Exception, match="224x224"):
        onnxcam.Explainer(small_cnn(), preprocess="torchvision")
    model = small_cnn()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.ClearField("dim_value")
    assert onnxcam.Explainer(model, preprocess="torchvision").labels is None


def test_labels_with_the_word_are_listed() -> None:
    labels = read_labels("imagenet-1k")
    with pytest.raises(TargetError) as caught:
        resolve("Cat", 1000, labels)
    message = str(caught.value)
    assert "282 (tiger cat), 283 (Persian cat)" in message
    assert "oystercatcher" not in message and "catamaran" not in message
    assert message.endswith("-t 282.")
    assert resolve("282", 1000, labels)[0].index == 282
    with pytest.raises(TargetError, match="and 3 more"):
        resolve("x", 15, [f"x {i}" for i in range(15)])
    with pytest.raises(TargetError, match="no such label. Nearest: tabby"):
        resolve("tabbyy", 1000, labels)


def test_a_source_tree_that_shadows_an_installed_package(tmp_path: Path) -> None:
    """Models and the page of targets lie beside the package, where no build has packed them."""
    source = Path(onnxcam.__file__).parent
    (tmp_path / "onnxcam").mkdir()
    for entry in source.iterdir():
        if entry.name not in ("models", "docs", "__pycache__"):
            (tmp_path / "onnxcam" / entry.name).symlink_to(entry)
    models, page = onnxcam.default_model().parent, source.parent / "docs"
    (tmp_path / "models").symlink_to(models)
    (tmp_path / "docs").symlink_to(page if page.is_dir() else source / "docs")
    script = """
        import sys
        # An editable install finds its package before the path is looked at.
        sys.meta_path[:] = [it for it in sys.meta_path if "_editable" not in type(it).__module__]
        import onnxcam
        from onnxcam.cli.targets import targets
        print(onnxcam.default_model(), onnxcam.default_photograph())
        made = onnxcam.Explainer(onnxcam.default_model())
        print(made.labels[made.explain(onnxcam.default_photograph())[0].target])
        targets()
    """
    done = subprocess.run(
        [sys.executable, "-"],
        input=textwrap.dedent(script),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    where, label, title = done.stdout.splitlines()[:3]
    beside = tmp_path / "models"
    assert where == f"{beside / 'efficientnet-lite0.onnx'} {beside / 'chelsea.png'}"
    assert label == "tiger cat" and title.startswith("# ")
