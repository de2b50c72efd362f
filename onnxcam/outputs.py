"""A folder of overlays, arrays and records."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from onnxcam.errors import OutputError
from onnxcam.explanation import Explanation, save_picture
from onnxcam.files import write_atomically
from onnxcam.sheets import contact_sheet

RECORDS = "explanations.json"
USUAL = "grad-cam"  # needs no mention in a file's name


class Outputs:
    """A directory of overlays, arrays and records; it is created with the first file."""

    def __init__(self, folder: Path, suffix: str, arrays: bool) -> None:
        """Check that the directory can be made and written, without making it.

        Raises:
            OutputError: it cannot.
        """
        self.folder, self.suffix, self.arrays = folder, suffix, arrays
        self._taken: set[str] = set()
        existing = folder.absolute()
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise OutputError(f"{folder}: cannot be a directory, '{existing}' is a file.")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise OutputError(f"{folder}: '{existing}' is not writable. Choose another with -o.")

    def save(self, explanations: Iterable[Explanation], stem: str) -> list[dict[str, Any]]:
        """Write overlays, and arrays where wanted; return the records with their names."""
        records = []
        listed = list(explanations)
        layered = len({e.layer for e in listed if e.detected is None}) > 1
        several = len({e.method for e in listed}) > 1 or any(e.method != USUAL for e in listed)
        for explanation in listed:
            method = f"-{_plain(explanation.method)}" if several else ""
            layer = f"-{_plain(explanation.layer)}" if layered else ""
            name = self._free(f"{stem}-{_slug(explanation)}{method}{layer}")
            record = explanation.to_dict()
            record["overlay"] = explanation.save(self.folder / f"{name}.{self.suffix}").name
            if self.arrays:
                record["arrays"] = explanation.save(self.folder / f"{name}.npz").name
            records.append(record)
        return records

    def save_sheets(self, explanations: Iterable[Explanation], stem: str) -> list[str]:
        """Write a contact sheet for each target and method with several layers; return names."""
        rows: dict[tuple[str, str], list[Explanation]] = {}
        for explanation in explanations:
            rows.setdefault((_slug(explanation), explanation.method), []).append(explanation)
        names = []
        for (slug, method), row in rows.items():
            if len({e.layer for e in row}) > 1:
                kind = "" if method == USUAL else f"-{_plain(method)}"
                name = f"{self._free(f'{stem}-{slug}{kind}-layers')}.{self.suffix}"
                save_picture(contact_sheet(row), self.folder / name)
                names.append(name)
        return names

    def write_records(self, document: dict[str, Any]) -> None:
        """Write ``explanations.json``."""
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.folder / RECORDS, lambda file: file.write(text.encode()))

    def _free(self, name: str) -> str:
        """Return a free name: images of the same name in different folders are numbered."""
        free, count = name, 1
        while free.lower() in self._taken:
            count += 1
            free = f"{name}-{count}"
        self._taken.add(free.lower())
        return free


def _slug(explanation: Explanation) -> str:
    if explanation.target is None:
        return _plain(explanation.element or "")
    label = _plain(explanation.label or "")
    return f"{explanation.target}-{label}" if label else str(explanation.target)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("++", "-pp")).strip("-")[:40]
