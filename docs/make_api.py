"""Write docs/api.md: the public names of onnxcam, from their docstrings.

python docs/make_api.py
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxcam  # noqa: E402
from onnxcam import errors  # noqa: E402
from onnxcam.image_files import FileResult, FileRun  # noqa: E402
from onnxcam.notebook import Explanations  # noqa: E402
from onnxcam.portable import Exported  # noqa: E402

PAGE = Path(__file__).with_name("api.md")
COMMAND = "python docs/make_api.py"

FIRST = ("Explainer", "Explanation", "explain_files", "add_gradients")
RETURNED = {"onnxcam.notebook.Explanations": Explanations}
RETURNED["onnxcam.portable.Exported"] = Exported
RETURNED |= {f"onnxcam.image_files.{c.__name__}": c for c in (FileRun, FileResult)}
NOT_MADE = {"Explanation", "Explanations", "FileRun", "FileResult", "Exported"}  # by users
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields")

INTRODUCTION = f"""\
# API

What `import onnxcam` offers, written by `{COMMAND}` from the docstrings; a test fails when this page
is stale. [The README](../README.md) shows it at work, [architecture.md](architecture.md) says how to
write methods, targets and rules of your own.
"""


def markdown(text: str | None) -> str:
    """Return a docstring in Google's style as Markdown."""
    lines: list[str] = []
    section = ""
    for line in inspect.cleandoc(text or "").splitlines():
        header = line.rstrip(":") if line.endswith(":") else ""
        if header in SECTIONS:
            section = header
            lines += [f"*{header}*", ""]
        elif section and line.startswith(" "):
            lines.append(_entry(line[4:], section))
        else:
            section = section if not line else ""
            lines.append(line)
    plain = "\n".join(lines)
    plain = re.sub(r":\w+:`~?([^`]+)`", lambda found: f"`{_shortened(found[1])}`", plain)
    return re.sub(r"``([^`]+)``", r"`\1`", plain).strip()


def _shortened(name: str) -> str:
    """Return ``Explainer.explain`` for ``onnxcam.Explainer.explain``; other modules' names stay."""
    public = name.removeprefix("onnxcam.")
    return public if public.split(".")[0] in onnxcam.__all__ else name


def _entry(line: str, section: str) -> str:
    """Return a line of a section: what begins an entry becomes a point of a list."""
    named = re.match(r"([\w, *.]+): (.*)", line)
    if line.startswith(" ") or named is None or section in ("Returns", "Yields"):
        return f"  {line.strip()}" if line.startswith(" ") else line
    return f"* `{named[1]}`: {named[2]}"


def signature(name: str, made: Any) -> str:
    """Return a call's signature in a block, one parameter a line where it is long."""
    found = inspect.signature(made)
    parameters = [p for p in found.parameters.values() if p.name != "self"]
    alone = [_parameter(p) for p in parameters]
    first = next((i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
    if first is not None:
        alone.insert(first, "*")
    returned = found.return_annotation
    arrow = "" if returned in (found.empty, "None", None) else f" -> {returned}"
    one = f"{name}({', '.join(alone)}){arrow}"
    if len(one) > 90:
        one = "\n".join([f"{name}(", *(f"    {p}," for p in alone), f"){arrow}"])
    return f"```python\n{one}\n```"


def _parameter(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is parameter.empty:
        return f"{parameter.name}: {parameter.annotation}"
    shown = "..." if "<" in repr(default) else repr(default)  # a factory of defaults
    return f"{parameter.name}: {parameter.annotation} = {shown}"


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield public methods and properties with docstrings, inherited ones of onnxcam included."""
    seen = set()
    for owner in kind.__mro__:
        if not owner.__module__.startswith("onnxcam"):
            continue
        for name, member in vars(owner).items():
            function = getattr(member, "__func__", getattr(member, "func", member))
            if not name.startswith("_") and name not in seen and not inspect.isclass(member):
                seen.add(name)
                described = isinstance(member, property) or inspect.isfunction(function)
                if described and inspect.getdoc(function):
                    yield name, member


def of_class(name: str, kind: type) -> Iterator[str]:
    yield f"## {name}"
    short = name.rsplit(".", 1)[-1]
    if short not in NOT_MADE:
        yield signature(short, kind)
    yield markdown(kind.__doc__)
    own = vars(kind).get("__init__")
    if not dataclasses.is_dataclass(kind) and short not in NOT_MADE and own is not None:
        yield markdown(own.__doc__)
    for member_name, member in members(kind):
        yield f"### {short}.{member_name}"
        function = getattr(member, "__func__", getattr(member, "func", member))
        if inspect.isfunction(member) or isinstance(member, staticmethod | classmethod):
            bound = getattr(kind, member_name) if not inspect.isfunction(member) else function
            yield signature(member_name, bound)
        yield markdown(function.__doc__)


def of_errors() -> Iterator[str]:
    yield "## Errors"
    yield "Every mistake raises a subclass of `onnxcam.OnnxcamError`; they lie in `onnxcam.errors`."
    kinds = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    kinds = sorted(
        (c for c in kinds if issubclass(c, onnxcam.OnnxcamError)), key=lambda c: c.__name__
    )
    rows = [f"| `{c.__name__}` | {' '.join((c.__doc__ or '').split())} |" for c in kinds]
    yield "\n".join(["| error | when |", "|---|---|", *rows])


def page() -> str:
    """Return the page."""
    names = [
        *FIRST,
        *sorted(set(onnxcam.__all__) - {*FIRST, "__version__", "OnnxcamError"}, key=str.lower),
    ]
    parts = [INTRODUCTION.rstrip()]
    for name in names:
        value = getattr(onnxcam, name)
        if inspect.isclass(value):
            parts += of_class(name, value)
        else:
            parts += [f"## {name}", signature(name, value), markdown(value.__doc__)]
    for name, kind in RETURNED.items():
        parts += of_class(name, kind)
    return "\n\n".join([*(p for p in (*parts, *of_errors()) if p), ""]).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
