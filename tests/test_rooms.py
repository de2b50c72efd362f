"""Nothing imports what stands above it, and nothing imports itself in a circle.

Every import counts: those inside functions and those for type checkers too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "onnxcam"

# Ground first; what a room may import stands beside it. docs/architecture.md describes them.
ROOMS: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "files": {"errors"},
    "notes": set(),
    "graph": {"errors"},
    "model": {"errors", "files", "graph"},
    "gradient": {"errors", "graph", "model"},
    "surgeon": {"errors", "graph", "model", "gradient"},
    "kernels": {"errors", "files"},
    "imaging": {"errors", "kernels"},
    "runtime": {"errors"},
    "targets": {"errors"},
    "methods": {"errors", "gradient", "kernels", "graph", "surgeon"},
    "inputs": {"errors", "files", "imaging", "kernels", "model", "surgeon"},
    "cache": {"_version", "files", "surgeon"},
    "notebook": {"errors", "imaging"},
    "feeds": {"surgeon"},
    "runner": {"feeds", "cache", "errors", "gradient", "methods", "runtime", "surgeon"},
}
ROOMS["explanation"] = {
    *("errors", "files", "imaging", "kernels", "methods", "notebook", "notes", "targets")
}
ROOMS["checks"] = {"errors", "methods", "model", "surgeon"}
ROOMS["finishing"] = {"kernels", "methods", "runtime", "surgeon"}
ROOMS["layers"] = {"errors", "kernels", "model", "notes", "surgeon"}
ROOMS["batch"] = {"inputs", "surgeon", "targets"}
ROOMS["image_runs"] = {"batch", "errors", "feeds", "methods", "runner", "surgeon"}
ROOMS["job"] = set(ROOMS) - {"_version", "cache", "files", "gradient", "graph"}
ROOMS["meaning"] = {"batch", "errors", "inputs", "surgeon", "targets"}
ROOMS["explainer"] = set(ROOMS) - {"_version", "cache", "files", "graph", "kernels"}
ROOMS["sheets"] = {"errors", "explanation", "imaging"}
ROOMS["animations"] = {"errors", "explanation", "files", "imaging"}
ROOMS["outputs"] = {"animations", "errors", "explanation", "files", "imaging", "sheets"}
ROOMS["image_files"] = {
    *("_version", "errors", "explainer", "explanation", "files", "inputs", "outputs", "runtime"),
    *("animations", "imaging", "targets"),
}
ROOMS["aims"] = {"batch", "errors", "surgeon", "targets"}
ROOMS["portable"] = {
    "aims",
    *(
        "_version",
        "errors",
        "batch",
        "explainer",
        "files",
        "inputs",
        "methods",
        "model",
        "surgeon",
        "targets",
        "imaging",
    ),
}
ROOMS["web_page"] = {
    *("_version", "errors", "files", "imaging", "methods", "portable", "surgeon"),
}
ROOMS["trials"] = {"errors", "explainer", "imaging", "inputs"}
ROOMS["gradient_run"] = {"errors", "gradient", "graph", "inputs", "model", "runtime", "surgeon"}
ROOMS["gradient_check"] = {"gradient_run", "runtime"}
ROOMS["gradient_picture"] = {"errors", "explanation", "gradient_run", "notes"}
ROOMS["health"] = {"errors", "files", "kernels", "runtime"}
ROOMS["compare"] = {
    *(
        "_version",
        "batch",
        "cache",
        "errors",
        "explainer",
        "feeds",
        "files",
        "imaging",
        "inputs",
    ),
    *("job", "kernels", "layers", "methods", "model", "notes", "runner", "runtime", "surgeon"),
    "image_runs",
    "targets",
}
ROOMS["cli"] = {*ROOMS, "__init__"}
ROOMS["__main__"] = {"cli"}
ROOMS["__init__"] = set(ROOMS) - {"cli", "__main__"}

# In a room with rooms of its own, what these may import of each other.
WITHIN = {
    "gradient/rules": {"gradient", "gradient/helpers"},
    "gradient/helpers": {"gradient"},
    "gradient/overrides": {"gradient", "gradient/helpers"},
    "gradient/blocked": {"gradient", "gradient/helpers", "gradient/rules"},
    "gradient/ort": {"gradient", "gradient/helpers", "gradient/rules"},
    "surgeon/find": {"surgeon"},
    "surgeon/seeds": {"surgeon", "surgeon/find"},
    "surgeon/portable": {"surgeon", "surgeon/find", "surgeon/seeds"},
}


@cache
def modules() -> dict[str, Path]:
    """Return the files of the package by the names of their modules."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "models":
            found[".".join(["onnxcam", *parts]).removesuffix(".__init__")] = file
    return found


def imports(name: str) -> Iterator[str]:
    """Yield the modules of the package that a module imports, wherever it does."""
    for node in ast.walk(ast.parse(modules()[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in modules())
        elif isinstance(node, ast.ImportFrom) and node.module in modules() and not node.level:
            names = [a.name for a in node.names if a.name != "_native"]  # compiled
            inside = [f"{node.module}.{name}" for name in names]
            yield from (m if m in modules() else node.module for m in inside)


def room(name: str) -> str:
    return "__init__" if name == "onnxcam" else name.split(".")[1]


def inner_room(name: str) -> str:
    """Return ``gradient/rules`` for a module in there, ``gradient`` for one that is in no inner."""
    package = modules()[name].parent.relative_to(PACKAGE).as_posix()
    return package if package in WITHIN else package.split("/")[0]


@pytest.mark.parametrize("name", modules())
def test_no_import_leads_upwards(name: str) -> None:
    for other in set(imports(name)):
        own, theirs = room(name), room(other)
        if own != theirs:
            assert theirs in ROOMS[own], f"{name} imports {other}: {own}/ stands below {theirs}/"
        elif inner_room(name) in WITHIN and inner_room(name) != inner_room(other):
            allowed = WITHIN[inner_room(name)]
            assert inner_room(other) in allowed, f"{name} imports {other}"


def test_every_room_is_listed() -> None:
    assert {room(name) for name in modules()} == set(ROOMS)


def test_there_is_no_circle() -> None:
    state: dict[str, str] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if state.get(name) == "done":
            return
        assert state.get(name) != "open", f"a circle: {' -> '.join([*path, name])}"
        state[name] = "open"
        for other in set(imports(name)) - {name}:
            visit(other, (*path, name))
        state[name] = "done"

    for name in modules():
        visit(name, ())


def test_the_command_line_alone_prints() -> None:
    for name, file in modules().items():
        calls = (n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.Call))
        prints = any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls)
        assert not prints or room(name) == "cli", f"{name} prints"


LONGEST_MODULE, LONGEST_FUNCTION = 400, 60  # lines; of a function's body


@pytest.mark.parametrize("name", modules())
def test_modules_and_functions_are_short(name: str) -> None:
    text = modules()[name].read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = [n for n in node.body if not _is_docstring(n)]
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
