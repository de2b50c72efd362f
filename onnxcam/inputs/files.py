"""Find image files by names, folders and patterns."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from onnxcam.errors import ImageError
from onnxcam.imaging.decode import SUFFIXES
from onnxcam.inputs.arrays import is_array_file

_RECORDS = "explanations.json"  # stands in every output folder


def find_images(arguments: Sequence[str], skip: Path) -> list[Path]:
    """Return image files, in order and without repeats; folders and patterns are expanded.

    Args:
        arguments: files, folders or patterns.
        skip: the output folder. Pictures there, and in output folders of other runs below a folder
            that is given, are left out.

    Raises:
        ImageError: a folder or pattern has no image.
    """
    found: dict[Path, None] = {}
    skipped = skip.resolve()
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            outputs = {skipped, *(r.parent.resolve() for r in path.rglob(f"*/{_RECORDS}"))}
            every = sorted(
                p
                for p in path.rglob("*")
                if p.is_file()
                and not p.name.startswith(".")
                and outputs.isdisjoint(p.resolve().parents)
            )
            inside = [p for p in every if p.suffix.lower() in SUFFIXES]
            inside = inside or [p for p in every if is_array_file(p)]
            if not inside:
                raise ImageError(f"{path}: no images in this directory.")
            found |= dict.fromkeys(inside)
        elif not path.exists() and any(c in argument for c in "*?["):
            matched = [Path(p) for p in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207
            matched = [p for p in matched if p.is_file() and skipped not in p.resolve().parents]
            if not matched:
                raise ImageError(f"'{argument}': no file matches this pattern.")
            found |= dict.fromkeys(matched)
        else:
            found[path] = None
    return list(found)
