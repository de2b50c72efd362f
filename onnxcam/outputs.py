"""A folder of overlays, arrays and records, and what earlier runs left there.

``explanations.json`` of an earlier run is kept: where the model and what was chosen in it are the
same, its images that a later run does not explain again stay in it; otherwise it is renamed
``explanations-1.json`` (2, 3, ...). No picture that a kept record names is overwritten.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from onnxcam.animations import Animation
from onnxcam.errors import OutputError
from onnxcam.explanation import Explanation
from onnxcam.files import check_writable, save_picture, write_atomically
from onnxcam.imaging.style import USUAL as PLAIN
from onnxcam.imaging.style import Style
from onnxcam.sheets import contact_sheet

RECORDS = "explanations.json"
_NO_CHOICE = ("providers",)  # of what is said of the model: the map does not depend on it
USUAL = "grad-cam"  # needs no mention in a file's name


class Outputs:
    """A directory of overlays, arrays and records; it is created with the first file."""

    def __init__(self, folder: Path, suffix: str, arrays: bool, style: Style = PLAIN) -> None:
        """Check that the directory can be made and written, without making it.

        Args:
            folder: the directory.
            suffix: of the pictures, ``"jpg"``.
            arrays: whether maps are written too.
            style: how pictures look.

        Raises:
            OutputError: it cannot.
        """
        self.folder, self.suffix, self.arrays, self.style = folder, suffix, arrays, style
        self._taken: set[str] = set()
        self._earlier: dict[str, Any] = {}
        self._same = False
        check_writable(folder, folder=True)

    def look(self, model: dict[str, Any]) -> None:
        """See what earlier runs left; ``model`` is what the records will say of it."""
        for file in sorted(self.folder.glob("explanations*.json")):
            document = _read(file)
            for entry in document.get("images", []):
                self._taken |= _names(entry)
            if file.name == RECORDS:
                self._earlier = document
        said = self._earlier.get("model")
        self._same = isinstance(said, dict) and _chosen(said) == _chosen(model)

    def save(
        self, explanations: Iterable[Explanation], stem: str, image: str = ""
    ) -> list[dict[str, Any]]:
        """Write overlays, and arrays where wanted; return the records with their names.

        ``image`` is the file's name in the records: its earlier pictures may be overwritten.
        """
        records = []
        listed = list(explanations)
        names = self._names_of([(e, _slug(e)) for e in listed], stem, image)
        for explanation, name in zip(listed, names, strict=True):
            record = explanation.to_dict()
            record["overlay"] = explanation.save(
                self.folder / f"{name}.{self.suffix}", self.style
            ).name
            if self.arrays:
                record["arrays"] = explanation.save(self.folder / f"{name}.npz").name
            records.append(record)
        return records

    def save_animations(
        self, animations: Sequence[Animation], stem: str, image: str = ""
    ) -> list[dict[str, Any]]:
        """Write animated GIFs, and arrays where wanted; return the records with their names.

        Where the target is not the same in all frames, its rank is in the name.
        """
        records = []
        slugs = [
            _slug(a.first) if len(a.labels) == 1 else f"top-{a.first.rank or 1}" for a in animations
        ]
        listed = [(a.first, slug) for a, slug in zip(animations, slugs, strict=True)]
        for animation, name in zip(animations, self._names_of(listed, stem, image), strict=True):
            record = animation.to_dict()
            record["overlay"] = animation.save(self.folder / f"{name}.gif").name
            if self.arrays:
                record["arrays"] = animation.save(self.folder / f"{name}.npz").name
            records.append(record)
        return records

    def _names_of(
        self, listed: Sequence[tuple[Explanation, str]], stem: str, image: str
    ) -> list[str]:
        """Return free names, without suffixes, for explanations and what tells their targets."""
        if self._same and listed:
            for entry in self._earlier["images"]:
                self._taken -= _names(entry) if entry["image"] == image else set()
        layered = len({e.layer for e, _ in listed if e.detected is None}) > 1
        several = len({e.method for e, _ in listed}) > 1 or any(
            e.method != USUAL for e, _ in listed
        )
        names = []
        for explanation, slug in listed:
            method = f"-{_plain(explanation.method)}" if several else ""
            layer = f"-{_plain(explanation.layer)}" if layered else ""
            names.append(self._free(f"{stem}-{slug}{method}{layer}"))
        return names

    def save_sheets(
        self, explanations: Sequence[Explanation], stem: str, whole: bool = False
    ) -> list[str]:
        """Write a contact sheet for each target and method with several layers; return names.

        ``whole`` makes it one sheet of all, over targets, methods and layers.
        """
        if whole and explanations:
            return [self._sheet(explanations, f"{stem}-sheet")]
        rows: dict[tuple[str, str], list[Explanation]] = {}
        for explanation in explanations:
            rows.setdefault((_slug(explanation), explanation.method), []).append(explanation)
        names = []
        for (slug, method), row in rows.items():
            if len({e.layer for e in row}) > 1:
                kind = "" if method == USUAL else f"-{_plain(method)}"
                names.append(self._sheet(row, f"{stem}-{slug}{kind}-layers"))
        return names

    def _sheet(self, explanations: Sequence[Explanation], name: str) -> str:
        name = f"{self._free(name)}.{self.suffix}"
        save_picture(contact_sheet(explanations, self.style), self.folder / name)
        return name

    def write_records(self, document: dict[str, Any]) -> None:
        """Write ``explanations.json``, with what is kept of an earlier one.

        Raises:
            OutputError: it cannot be written.
        """
        earlier = self.folder / RECORDS
        if self._same:
            done = {e["image"] for key in ("images", "failed") for e in document[key]}
            kept = {
                key: [e for e in self._earlier[key] if e["image"] not in done]
                for key in ("images", "failed")
            }
            document = {**document, **{key: kept[key] + document[key] for key in kept}}
        elif earlier.is_file():
            _rename(earlier)
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


def _read(file: Path) -> dict[str, Any]:
    """Return a document of an earlier run, ``{}`` where the file is none."""
    try:
        found = json.loads(file.read_text("utf-8"))
        for key in ("images", "failed"):
            for entry in found[key]:
                _names(entry), entry["image"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return dict(found)


def _names(entry: dict[str, Any]) -> set[str]:
    """Return the names of an image's files, without suffixes."""
    records = entry.get("explanations", [])
    files = [r[key] for r in records for key in ("overlay", "arrays") if key in r]
    files += entry.get("sheets", [])
    return {Path(name).stem.lower() for name in files}


def _chosen(model: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key not in _NO_CHOICE}


def _rename(file: Path) -> None:
    count = 1
    while (target := file.with_name(f"{file.stem}-{count}{file.suffix}")).exists():
        count += 1
    try:
        file.rename(target)
    except OSError as error:
        raise OutputError(f"{file}: cannot be renamed ({error.strerror}).") from error


def _slug(explanation: Explanation) -> str:
    if explanation.target is None:
        return _plain(explanation.element or "")
    label = _plain(explanation.label or "")
    return f"{explanation.target}-{label}" if label else str(explanation.target)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("++", "-pp")).strip("-")[:40]
