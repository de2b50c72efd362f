"""What is generated in docs/ is up to date."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import onnx
import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_operators", DOCS / "make_operators.py")
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
