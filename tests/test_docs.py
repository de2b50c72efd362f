"""What is generated in docs/ is up to date."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import onnxcam
import onnxcam.gradient.add  # registers the rules
from onnxcam.cli.explain import explain
from onnxcam.gradient.registry import RULES
from onnxcam.inputs.annotations import read_annotations
from onnxcam.methods.registry import METHODS, methods

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [*DOCS.parent.glob("*.md"), *DOCS.glob("*.md"), *(DOCS.parent / "examples").glob("*.ipynb")]


def generator(name: str = "make_operators") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)[:3]]


def test_the_page_of_operators_is_up_to_date() -> None:
    written = (DOCS / "operators.md").read_text()
    named = re.search(r"onnx ([\d.]+)\s+\(opset (\d+)\)", written)
    assert named is not None
    version, opset = named[1], int(named[2])
    if numbers(onnx.__version__) < numbers(version):
        pytest.skip(f"the page describes the operators of onnx {version}")
    module = generator()
    made = module.page(version, opset)  # of a newer onnx, what the older one knew
    stale = [line for line in made.splitlines() if line not in written.splitlines()]
    assert made == written, f"docs/operators.md is stale: run '{module.COMMAND}'. New: {stale[:5]}"


def test_the_page_of_the_api_is_up_to_date() -> None:
    module = generator("make_api")
    made, written = module.page(), (DOCS / "api.md").read_text("utf-8")
    stale = [line for line in made.splitlines() if line not in written.splitlines()]
    assert made == written, f"docs/api.md is stale: run '{module.COMMAND}'. New: {stale[:5]}"
    headings = {line[3:] for line in made.splitlines() if line.startswith("## ")}
    assert set(onnxcam.__all__) - {"__version__", "OnnxcamError"} <= headings
    assert {"Errors", "onnxcam.notebook.Explanations"} <= headings


def test_the_page_of_methods_is_up_to_date() -> None:
    module = generator("make_methods")
    made, written = module.page(), (DOCS / "methods.md").read_text("utf-8")
    stale = [line for line in made.splitlines() if line not in written.splitlines()]
    assert made == written, f"docs/methods.md is stale: run '{module.COMMAND}'. New: {stale[:5]}"


def test_the_tests_that_the_page_of_methods_names_are_there() -> None:
    notes = tomllib.loads((DOCS / "methods.toml").read_text("utf-8"))
    named = {n: one for n, one in notes.items() if "test" in one}
    assert len(named) > 40
    for name, one in named.items():
        file, _, test = one["test"].partition("::")
        text = (DOCS.parent / file).read_text("utf-8")
        assert re.search(rf"^def {test}\b", text, re.MULTILINE), name
        assert name.split("-")[0] in text, f"{name} is not tried in {file}"


def test_the_changelog_begins_with_this_version() -> None:
    text = (DOCS.parent / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## ([\d.]+)", text, re.MULTILINE)
    assert versions[0] == onnxcam.__version__
    assert versions == sorted(versions, key=numbers, reverse=True)


def anchors(page: Path) -> set[str]:
    """Return what links to the headings of a page end with."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text("utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    else:
        text = page.read_text("utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        aim = page.parent / name if name else page
        assert aim.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(aim), f"{page.name}: {link}"


def test_the_examples_of_the_architecture_page_run() -> None:
    """In one namespace, in their order; the made-up rules leave the table again."""
    text = (DOCS / "architecture.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    before, methods_before = dict(RULES), dict(methods())
    try:
        scope: dict[str, object] = {}
        for block in blocks:
            exec(block, scope)
        for name, forward in (("Cube", lambda x: x**3), ("Turned", lambda x: x.T)):
            check_made_up(name, forward)
    finally:
        RULES.clear()
        RULES.update(before)
        METHODS.clear()
        METHODS.update(methods_before)
    found = scope["found"]
    assert isinstance(found, onnxcam.Explanation) and found.signed.max() > 0
    model = scope["model"]
    assert isinstance(model, onnx.ModelProto)
    changed = {n.op_type for n in model.graph.node if n.name.startswith("onnxcam:")}
    assert {"Add", "Mul"} <= changed


def check_made_up(name: str, forward: Callable[[np.ndarray], np.ndarray]) -> None:
    """Compare a rule of the page with central differences, the operator being ours."""

    class Op(OpRun):
        op_domain = "made.up"

        def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
            return (forward(x),)

    Op.__name__ = name
    x = np.random.default_rng(0).normal(size=(2, 3))
    y = forward(x)
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17, "made.up" : 1]> '
        f"net (double[2,3] x) => (double{list(y.shape)} y) {{ y = made.up.{name}(x) }}"
    )
    made = onnxcam.add_gradients(model, "y", "x")
    seed = np.random.default_rng(1).normal(size=(3, *y.shape))
    [found] = ReferenceEvaluator(made, new_ops=[Op]).run(["gradient:x"], {"x": x, "seed:y": seed})
    step = 1e-5
    for i in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[i] = step
        slope = (forward(x + e) - forward(x - e)) / (2 * step)
        np.testing.assert_allclose(found[:, *i], (seed * slope).sum((1, 2)), rtol=1e-5, atol=1e-7)


def test_the_example_of_the_page_of_targets_runs() -> None:
    text = (DOCS / "targets.md").read_text("utf-8")
    [_, block] = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    scope: dict[str, object] = {}
    exec(block, scope)  # tests/cli/test_recipes.py runs the other
    found = scope["found"]
    assert isinstance(found, onnxcam.Explanation) and found.score > 0
    assert np.abs(found.signed).max() > 0


def test_the_page_of_pictures_says_what_there_is(tmp_path, monkeypatch) -> None:
    """Its example runs, its table names every option, and the defaults are those."""
    text = (DOCS / "overlays.md").read_text("utf-8")
    pictures, boxes = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(pictures, scope)
    assert Path("cat.png").is_file() and len(scope["pictures"]) == 4
    exec(boxes, scope)
    assert Path("boxes.png").is_file()
    [example] = re.findall(r"^```json\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    Path("boxes.json").write_text(example)
    assert read_annotations(["boxes.json"]).of("chelsea.png") == scope["found"].annotations
    table = text.split("```")[0]
    for field in dataclasses.fields(onnxcam.Style):
        assert f"`{field.name}=" in table
        if isinstance(field.default, (float, str)) and field.type != "bool":
            assert f"{field.default} by default" in table.replace("`", "")
    options = set(re.findall(r"--[a-z-]+", table)) - {"--arrays", "---"}
    for option in options:
        parameter = option.removeprefix("--").replace("-", "_")
        assert parameter in inspect.signature(explain).parameters
    defaults = inspect.signature(explain).parameters
    assert defaults["alpha"].default == onnxcam.Style().alpha
    assert defaults["colormap"].default == onnxcam.Style().colours
