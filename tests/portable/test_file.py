"""What kind of file a portable model is: weights outside, opset, float16, errors of the command."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxcam
from onnxcam import cli
from onnxcam.errors import ModelError, OutputError
from onnxcam.model.lower import lower

from ..conftest import parse, runtime, small_cnn


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["onnxcam", "export", *map(str, arguments)])
    cli.main()


def heatmap(path: Path, image: np.ndarray) -> np.ndarray:
    return runtime(path).run(["heatmap"], {"image": image})[0]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(1, 3, 16, 16)).astype("f")


def test_the_command_says_what_it_wrote(cnn, monkeypatch, capsys) -> None:
    out = cnn.with_name("model.cam.onnx")
    with pytest.raises(SystemExit) as done:
        command(monkeypatch, cnn)
    assert done.value.code == 0 and out.exists()
    said = capsys.readouterr().out
    nodes = len(onnx.load(cnn).graph.node)
    added = len(onnx.load(out).graph.node) - nodes
    grown = out.stat().st_size - cnn.stat().st_size
    assert f"added     {grown:+,} bytes to {cnn.stat().st_size:,}" in said
    assert f"{added} operators to {nodes}" in said
    assert "output 'heatmap'" in said and "opset 13, IR 7" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "is there already. --overwrite replaces it"),
        (["--overwrite", "--method", "occlusion"], "These go: grad-cam"),
        (["--overwrite", "--method", "eigen-cam"], "finished outside the graph"),
        (["--overwrite", "-t", "9"], "out of range"),
        (["--overwrite", "--overlay"], "--with-preprocessing"),
        (["--overwrite", "--batch", "0"], "1 or more"),
        (["--overwrite", "-t", "1", "--target-required"], "not both"),
    ],
)
def test_mistakes_leave_the_file(options, message, cnn, monkeypatch, capsys) -> None:
    out = cnn.with_name("there.onnx")
    out.write_bytes(b"kept")
    with pytest.raises(SystemExit) as done:
        command(monkeypatch, cnn, "-o", out, *options)
    assert done.value.code == 2
    assert message in capsys.readouterr().err
    assert out.read_bytes() == b"kept"
    assert not list(cnn.parent.glob(".*.part"))


def test_a_folder_is_told_with_a_file_in_it(cnn, tmp_path) -> None:
    with pytest.raises(OutputError, match="is a folder. Name a file in it") as told:
        onnxcam.export(cnn, tmp_path, overwrite=True)
    out = Path(str(told.value).split("-o '")[1].split("'")[0])
    assert out.parent == tmp_path and onnxcam.export(cnn, out).path == out


def test_places_that_cannot_be_written(cnn, tmp_path) -> None:
    with pytest.raises(OutputError, match="is the model's own file"):
        onnxcam.export(cnn, cnn, overwrite=True)
    with pytest.raises(OutputError, match="cannot be written"):
        onnxcam.export(cnn, cnn / "below-a-file.onnx")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_leaves_nothing(cnn, monkeypatch) -> None:
    opened = os.open
    monkeypatch.setattr("onnxcam.files.os.open", lambda *_: opened("/dev/full", os.O_WRONLY))
    out = cnn.with_name("full.onnx")
    with pytest.raises(OutputError, match="No space left"):
        onnxcam.export(cnn, out)
    assert not out.exists() and not list(cnn.parent.glob(".*.part"))


def test_external_weights_stay_where_they_are(tmp_path, image) -> None:
    source = small_cnn()
    for tensor in source.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    path = tmp_path / "outer.onnx"
    onnx.save(source, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = (tmp_path / "weights.bin").read_bytes()
    made = onnxcam.export(path, tmp_path / "outer.cam.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "outer.cam.onnx",
        "outer.onnx",
        "weights.bin",
    ]
    assert (tmp_path / "weights.bin").read_bytes() == before
    proto = onnx.load(made.path, load_external_data=False)
    outer = {t.name for t in proto.graph.initializer if t.data_location == t.EXTERNAL}
    assert {"w1", "w2", "w3"} <= outer
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "model.onnx").write_bytes(small_cnn().SerializeToString())
    whole = onnxcam.export(inner / "model.onnx", inner / "made.onnx")
    np.testing.assert_allclose(heatmap(made.path, image), heatmap(whole.path, image), atol=1e-6)
    with pytest.raises(OutputError, match="Write it beside them"):
        onnxcam.export(path, inner / "elsewhere.onnx")
    with pytest.raises(ModelError, match="one-file.onnx"):
        onnxcam.export(path, tmp_path / "half.onnx", fp16=True)
    shutil.rmtree(inner)


@pytest.mark.parametrize("opset", [13, 17, 18, 20, 21, 22])
def test_opset_and_ir_are_lowered(opset, save, image) -> None:
    model = small_cnn(opset=13)
    model.opset_import[0].version, model.ir_version = opset, 10
    path = save(model)
    made = onnxcam.export(path, path.with_name("made.onnx"), opset=20)
    onnx.checker.check_model(onnx.load(made.path), full_check=True)
    assert made.ir_version <= 9
    assert made.opset == (13 if opset < 18 else 18)  # ReduceMax has its axes as an input there
    want = onnxcam.Explainer(path, preprocess={}).explain(image)[0].heatmap
    np.testing.assert_allclose(heatmap(made.path, image)[0, 0], want, atol=1e-4)


@pytest.mark.parametrize(
    ("node", "opset", "least"),
    [
        ("Gelu (x)", 20, 20),
        ("LayerNormalization <axis=-1> (x, w)", 20, 17),
        ('Pad <mode="wrap"> (x, pads)', 20, 19),
        ('Pad <mode="edge"> (x, pads)', 20, 13),
        ("Shape <start=0> (x)", 20, 13),
        ("Shape <start=1> (x)", 20, 15),
        ("Mish (x)", 22, 18),
    ],
)
def test_what_an_older_opset_does_not_say(node, opset, least) -> None:
    kind = "int64[N]" if node.startswith("Shape") else "float[M,K]"
    model = parse(
        f'<ir_version: 10, opset_import: ["" : {opset}]> net (float[2,3] x) => ({kind} y) '
        f"{{ y = {node} }}",
        {"w": np.ones(3, "f"), "pads": np.array([0, 1, 0, 1])},
    )
    lower(model, Path("net.onnx"))
    assert model.opset_import[0].version == least
    onnx.checker.check_model(model, full_check=True)
    if least > 13:
        with pytest.raises(ModelError, match=f"cannot be lowered below {least}.*{node.split()[0]}"):
            lower(model, Path("net.onnx"), 13)


def test_float16(cnn, image) -> None:
    made = onnxcam.export(cnn, cnn.with_name("half.onnx"), fp16=True)
    proto = onnx.load(made.path)
    onnx.checker.check_model(proto, full_check=True)
    halves = [t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    assert {"w1:half", "w2:half"} <= {t.name for t in halves}
    assert not {"w1", "w2", "w3"} & {t.name for t in proto.graph.initializer}, "stored twice"
    assert all(
        o.type.tensor_type.elem_type != onnx.TensorProto.FLOAT16
        for o in [*proto.graph.input, *proto.graph.output]
    )
    want = onnxcam.Explainer(cnn).explain(image)[0].heatmap
    found = heatmap(made.path, image)[0, 0]
    np.testing.assert_allclose(found, want, atol=5e-2)
    assert np.corrcoef(found.ravel(), want.ravel())[0, 1] > 0.999


def test_the_batch_is_fixed(cnn, image) -> None:
    made = onnxcam.export(cnn, cnn.with_name("one.onnx"), batch=1)
    [given] = [i for i in onnx.load(made.path).graph.input if i.name == "image"]
    assert [d.dim_value for d in given.type.tensor_type.shape.dim] == [1, 3, 16, 16]
    want = onnxcam.Explainer(cnn).explain(image)[0].heatmap
    np.testing.assert_allclose(heatmap(made.path, image)[0, 0], want, atol=1e-4)


def test_names_that_the_model_has_keep_the_prefix(save, image) -> None:
    model = small_cnn()
    model.graph.node.append(helper.make_node("Identity", ["r2"], ["heatmap"]))
    model.graph.node.append(helper.make_node("Identity", ["logits"], ["scores"]))
    for name in ("heatmap", "scores"):
        model.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    path = save(model)
    made = onnxcam.export(path, path.with_name("made.onnx"), score="logits")
    assert made.heatmaps == {"grad-cam": "onnxcam:heatmap"}
    assert made.names["scores"] == "onnxcam:scores" and made.names["targets"] == "targets"
    outputs = {o.name for o in runtime(made.path).get_outputs()}
    assert {"heatmap", "scores", "onnxcam:heatmap", "onnxcam:scores"} <= outputs
