"""``onnxcam targets``."""

from __future__ import annotations

import typer


def targets() -> None:
    """Print what can be explained and how to ask for it: the page docs/targets.md."""
    typer.echo(_page(), nl=False)  # bytes: no code page of a terminal can lose a letter


def _page() -> bytes:
    """Return the page in UTF-8."""
    from onnxcam.files import packed

    return (packed("docs") / "targets.md").read_bytes()
