"""``onnxcam targets``."""

from __future__ import annotations

import typer


def targets() -> None:
    """Print what can be explained and how to ask for it: the page docs/targets.md."""
    typer.echo(_page(), nl=False)  # bytes: no code page of a terminal can lose a letter


def _page() -> bytes:
    """Return the page in UTF-8: a build packs it, a source tree has it beside the package."""
    from importlib.resources import files
    from pathlib import Path

    packed = files("onnxcam") / "docs" / "targets.md"
    if packed.is_file():
        return packed.read_bytes()
    return (Path(__file__).parents[2] / "docs" / "targets.md").read_bytes()
