"""A rule declares what it refuses; nothing else is refused, and nothing is declared in vain."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

import onnxcam.gradient.add
from onnxcam.errors import NoGradientError
from onnxcam.gradient.add import new_walk
from onnxcam.gradient.call import COMMON, Call, must_be_known
from onnxcam.gradient.function_bodies import REFUSES as OF_BODIES
from onnxcam.gradient.ort.equivalents import EQUIVALENTS
from onnxcam.gradient.overrides import deep_lift, excitation, relevance
from onnxcam.gradient.registry import RULES
from onnxcam.graph.builder import Builder

FOLDER = Path(inspect.getfile(onnxcam.gradient.add)).parent
RULES_OF_BOTH_ENGINES = [*RULES.values(), *EQUIVALENTS.values()]
DECLARED = {reason for rule in RULES_OF_BOTH_ENGINES for reason in rule.refuses}
DECLARED |= {*OF_BODIES, *deep_lift.REFUSES, *excitation.REFUSES, *relevance.REFUSES}


def written() -> Iterator[tuple[str, str]]:
    """Yield where a call refuses, and the reason; what it is given by its caller is not its own."""
    for file in sorted(FOLDER.rglob("*.py")):
        name = ".".join(["onnxcam.gradient", *file.relative_to(FOLDER).with_suffix("").parts])
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if name == "onnxcam.gradient.call":
                continue  # it refuses what others ask it to
            scope = vars(import_module(name.removesuffix(".__init__")))
            where = f"{name}:{node.lineno}"
            if node.func.attr == "refuse":
                yield from ((where, r) for r in reasons(node.args[0], scope))
            elif node.func.attr in ("known", "optional"):
                yield from ((where, must_be_known(r)) for r in reasons(node.args[1], scope))


def reasons(node: ast.expr, scope: dict[str, Any]) -> list[str]:
    """Return the texts that an argument can be."""
    if isinstance(node, ast.IfExp):
        return [*reasons(node.body, scope), *reasons(node.orelse, scope)]
    return [eval(ast.unparse(node), dict(scope))]


def test_every_reason_is_declared_by_some_rule() -> None:
    found = list(written())
    undeclared = [(w, r) for w, r in found if r not in DECLARED and r not in COMMON]
    assert len(found) > 50 and not undeclared


def test_no_reason_is_declared_in_vain() -> None:
    assert not DECLARED - {reason for _, reason in written()}


def test_another_reason_is_a_defect_of_the_rule() -> None:
    x = ir.Value(name="x")
    node = ir.node("Abs", [x], name="n")
    call = Call(node, new_walk(Builder(ir.Graph([x], node.outputs, nodes=[node]), 17)), ("why {}",))
    error = call.refuse("why {}", "not")
    assert isinstance(error, NoGradientError)
    assert str(error) == "Abs (node 'n', opset 17) cannot be differentiated here: why not."
    with pytest.raises(AssertionError, match="not declared by the rule: because"):
        call.refuse("because")
