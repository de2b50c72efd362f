"""What is written, and what is refused; without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import OutputError, PageError
from onnxcam.web_page import RUNTIME, export_page, find_runtime
from tests.cli.conftest import call, folder  # noqa: F401
from tests.conftest import parse, small_cnn
from tests.web.browser import WEB

ROOT = Path(__file__).resolve().parents[2]


def parts(place: Path, version: str = "1.2.3") -> Path:
    """Stand-ins for the runtime's files, as npm unpacks them; nothing here runs them."""
    dist = place / "package" / "dist"
    dist.mkdir(parents=True)
    for name in RUNTIME:
        (dist / name).write_text(name)
    (place / "package" / "package.json").write_text(json.dumps({"version": version}))
    return dist


def test_the_command_writes_a_page(folder: Path, call) -> None:  # noqa: F811
    arguments = ("export", "model.onnx", "--web", "web", "--example", "photos/a.png")
    code, out, err = call(*arguments)
    assert code == 2 and "onnxruntime-web" in err and not Path("web").exists()
    # The way out: what npm unpacks lies in package/dist.
    way_out = re.search(r"add (--runtime \S+)\.", " ".join(err.split()))
    parts(folder)
    code, out, err = call(*arguments, *way_out[1].split())
    assert (code, err) == (0, "") and "page      web: " in out
    page = json.loads(Path("web/page.json").read_text("utf-8"))
    assert page["labels"] == ["ant", "bee", "cat", "dog", "cat"]
    assert page["runtime"]["version"] == "1.2.3"
    assert page["scores"] == {"output": "probabilities", "shares": True}
    assert page["methods"][0]["heatmap"] == "heatmap" and page["target"] == "target"
    assert (page["model"], page["example"]) == ("model.cam.onnx", "example.png")
    written = {p.relative_to("web").as_posix() for p in Path("web").rglob("*") if p.is_file()}
    names = {f"ort/{name}" for name in ("ort.js", "wasm.js", "ort.wasm", "NOTICE.txt")}
    names |= {p.name for p in WEB.iterdir()}
    assert written == {*names, "page.json", "model.cam.onnx", "example.png"}
    # No script fetches anything elsewhere.
    for name in ("index.html", "style.css", *(p.name for p in WEB.glob("*.js"))):
        assert "//" not in re.sub(r"(?m)(^|\s)//.*$", "", Path("web", name).read_text("utf-8"))
    code, _, err = call(*arguments, "--runtime", "package")
    assert code == 2 and "--overwrite" in err
    assert call(*arguments, "--runtime", "package", "--overwrite")[0] == 0
    code, _, err = call("export", "model.onnx", "--runtime", "package")
    assert code == 2 and "--web DIR" in err


def test_the_runtime_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dist = parts(tmp_path / "node_modules" / "x")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(PageError, match="npm pack onnxruntime-web"):
        find_runtime()
    (tmp_path / "node_modules" / "onnxruntime-web").mkdir()
    (tmp_path / "node_modules" / "x" / "package").rename(
        tmp_path / "node_modules" / "onnxruntime-web" / "y"
    )
    (tmp_path / "node_modules" / "onnxruntime-web" / "y" / "dist").rename(
        tmp_path / "node_modules" / "onnxruntime-web" / "dist"
    )
    assert find_runtime() == find_runtime(tmp_path)
    assert find_runtime().resolve() == tmp_path / "node_modules" / "onnxruntime-web" / "dist"
    assert not dist.exists()
    with pytest.raises(PageError, match="nowhere: does not hold"):
        find_runtime("nowhere")


def test_the_gate_fetches_the_runtime_as_the_message_says() -> None:
    with pytest.raises(PageError) as caught:
        find_runtime("/")
    command = re.search(r"'(npm pack .*?)'", str(caught.value))[1]
    assert command in (ROOT / ".ci" / "run").read_text("utf-8")


def test_the_example_for_boards_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python example of the page of documentation, with the model of the command above it."""
    text = (ROOT / "docs" / "edge-web.md").read_text("utf-8")
    [block] = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert "-o lite.cam.onnx --with-preprocessing --overlay" in text
    monkeypatch.chdir(tmp_path)
    options = {"with_preprocessing": True, "overlay": True}
    onnxcam.export(onnxcam.default_model(), "lite.cam.onnx", **options)
    Path("chelsea.png").write_bytes(onnxcam.default_photograph().read_bytes())
    scope: dict[str, Any] = {}
    exec(block, scope)
    [right] = onnxcam.Explainer(onnxcam.default_model()).explain(onnxcam.default_photograph())
    assert scope["outputs"]["targets"][0, 0] == right.target
    drawn = np.asarray(Image.open("overlay.png")).astype(int)
    assert np.abs(drawn - np.asarray(right.overlay())).mean() < 1


def test_external_weights_are_copied(tmp_path: Path) -> None:
    source, web = tmp_path / "model", tmp_path / "web"
    source.mkdir()
    options = {"save_as_external_data": True, "size_threshold": 0, "location": "net.bin"}
    onnx.save_model(small_cnn(), source / "net.onnx", **options)
    asked = {"folder": web, "runtime": parts(tmp_path), "preprocess": "unit"}
    with pytest.raises(OutputError, match="Write it beside them"):
        export_page(source / "net.onnx", web / "net.cam.onnx", **asked)
    export_page(source / "net.onnx", source / "net.cam.onnx", **asked)
    assert (web / "net.bin").read_bytes() == (source / "net.bin").read_bytes()
    assert json.loads((web / "page.json").read_text())["external"] == ["net.bin"]


TWO_INPUTS = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N,3,16,16] image, float[N,5] bias) => (float[N,5] logits) {
        c = Conv <pads=[1,1,1,1]> (image, w)
        r = Relu (c)
        p = GlobalAveragePool (r)
        f = Flatten (p)
        m = MatMul (f, v)
        logits = Add (m, bias)
    }
"""


def test_what_a_page_cannot_give_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "v": rng.normal(size=(4, 5)).astype(np.float32),
    }
    asked = {"folder": tmp_path / "web", "runtime": parts(tmp_path)}
    onnx.save(parse(TWO_INPUTS, weights), tmp_path / "two.onnx")
    with pytest.raises(PageError, match="takes bias besides the photograph"):
        export_page(tmp_path / "two.onnx", tmp_path / "a.onnx", preprocess="unit", **asked)
    many = parse(
        TWO_INPUTS.replace("[N,3,16,16]", "[N,7,16,16]")
        .replace(", float[N,5] bias", "")
        .replace("logits = Add (m, bias)", "logits = Identity (m)"),
        {**weights, "w": rng.normal(size=(4, 7, 3, 3)).astype(np.float32)},
    )
    onnx.save(many, tmp_path / "many.onnx")
    with pytest.raises(PageError, match="takes no photographs"):
        export_page(tmp_path / "many.onnx", tmp_path / "b.onnx", **asked)
    with pytest.raises(PageError, match=r"example 'none.png': cannot be read"):
        export_page(tmp_path / "many.onnx", tmp_path / "c.onnx", example="none.png", **asked)
    assert not list(tmp_path.glob("[abc].onnx")) and not (tmp_path / "web").exists()
