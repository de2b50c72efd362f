"""The notebooks of examples/ run from top to bottom, and show what they say."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def run(cells: list[str], scope: dict[str, Any]) -> list[Any]:
    """Execute cells as a notebook does; return what each one's last expression gives."""
    shown = []
    for number, source in enumerate(cells):
        tree = ast.parse(source, f"cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), scope)
        if last is not None:
            expression = ast.Expression(last.value)
            shown.append(eval(compile(expression, f"cell {number}", "eval"), scope))
    return shown


def pictures(shown: Any) -> int:
    """Return how many pictures a notebook would draw; each must not be of one colour."""
    if isinstance(shown, Image.Image):
        found = [shown]
    elif isinstance(shown, list):
        assert shown._repr_html_().count("<img") == len(shown)
        found = [Image.open(io.BytesIO(e._repr_png_())) for e in shown]
    else:
        found = [Image.open(io.BytesIO(shown._repr_png_()))]
    assert all(np.ptp(np.asarray(p.convert("L"))) > 50 for p in found)
    return len(found)


def test_there_are_notebooks() -> None:
    assert [p.name for p in NOTEBOOKS] == ["explain.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_are_stored_without_results(path: Path) -> None:
    document = json.loads(path.read_text("utf-8"))
    assert document["nbformat"] == 4
    for cell in document["cells"]:
        assert isinstance(cell["source"], list) and cell["id"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_the_notebook_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    document = json.loads((EXAMPLES / "explain.ipynb").read_text("utf-8"))
    cells = ["".join(c["source"]) for c in document["cells"] if c["cell_type"] == "code"]
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    shown = run(cells, scope)
    assert [pictures(s) for s in shown if s is not None] == [1, 3, 3, 1]
    best = scope["best"]
    assert "cat" in best.label and f"peak at {best.peak}" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cat.json", "cat.npz", "cat.png"]
