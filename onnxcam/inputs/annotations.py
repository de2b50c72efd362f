"""Boxes that somebody annotated: COCO's JSON, Pascal VOC's XML, and a plain list in JSON.

A plain list has an entry an image, ``{"file": "a.jpg", "objects": [{"category": "dog", "bbox":
[x, y, width, height]}]}``. COCO's ``bbox`` is the same, in pixels from 0. Pascal VOC counts pixels
from 1 and includes the last one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from onnxcam.errors import AnnotationError
from onnxcam.imaging.boxes import Annotation

_FORMS = (
    "It must be COCO's JSON (images, annotations, categories), a JSON list of "
    '{"file": ..., "objects": [{"category": ..., "bbox": [x, y, width, height]}]}, or the XML of '
    "Pascal VOC, a file an image."
)
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_LISTED = 3  # names of images in a message


@dataclass(frozen=True)
class Annotated:
    """An image's boxes.

    Attributes:
        name: the image's name, perhaps with folders; of XML without a suffix.
        boxes: what was annotated.
        size: width and height of the image, where the file says them.
    """

    name: PurePosixPath
    boxes: tuple[Annotation, ...]
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Annotations:
    """What files of annotations hold, image by image; ``where`` names them in messages."""

    where: str
    images: tuple[Annotated, ...]

    @cached_property
    def _by_name(self) -> dict[str, list[Annotated]]:
        found: dict[str, list[Annotated]] = {}
        for image in self.images:
            found.setdefault(image.name.name, []).append(image)
        return found

    def of(self, path: str | Path, size: tuple[int, int] | None = None) -> tuple[Annotation, ...]:
        """Return the boxes of an image, none where it is not listed.

        Args:
            path: the image's file. Where several of its name are listed, folders decide.
            size: its width and height, which must be those that the file says.

        Raises:
            AnnotationError: several images fit, or it has another size.
        """
        found = self._find(Path(path))
        if found is None:
            return ()
        if size is not None and found.size is not None and size != found.size:
            raise AnnotationError(
                f"{self.where}: its boxes of {found.name} are of an image of "
                f"{found.size[0]}x{found.size[1]} pixels, and {path} has {size[0]}x{size[1]}."
            )
        return found.boxes

    def _find(self, path: Path) -> Annotated | None:
        fitting = [a for n in (path.name, path.stem) for a in self._by_name.get(n, [])]
        if len(fitting) > 1:
            parts = path.absolute().parts
            ends = [a for a in fitting if parts[-len(a.name.parts) :] == a.name.parts]
            longest = max((len(a.name.parts) for a in ends), default=0)
            fitting = [a for a in ends if len(a.name.parts) == longest] or fitting
        if len(fitting) > 1:
            raise AnnotationError(
                f"{self.where}: {len(fitting)} entries are named {path.name}. Name the images with "
                "their folders there."
            )
        return fitting[0] if fitting else None

    def check(self, paths: Sequence[Path]) -> None:
        """Refuse annotations of other images.

        Raises:
            AnnotationError: none of the images is listed.
        """
        if not any(self._find(p) for p in paths):
            names = ", ".join(str(a.name) for a in self.images[:_LISTED]) or "none"
            more = ", ..." if len(self.images) > _LISTED else ""
            raise AnnotationError(
                f"{self.where}: has boxes of other images only: {names}{more}. Images are found by "
                "their file names."
            )


def read_annotations(paths: Sequence[str | Path]) -> Annotations:
    """Read files of annotations, or folders of XML files.

    Raises:
        AnnotationError: one cannot be read, or holds something else.
    """
    found: list[Annotated] = []
    for path in map(Path, paths):
        files = sorted(path.glob("*.xml")) if path.is_dir() else [path]
        if not files:
            raise AnnotationError(f"{path}: no XML files of annotations in this folder.")
        for file in files:
            found += _read(file)
    return Annotations(", ".join(map(str, paths)), tuple(found))


def _read(path: Path) -> list[Annotated]:
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".xml":
            return [_of_xml(data, path)]
        content = json.loads(data)
        listed = content if isinstance(content, list) else None
        return list(_of_coco(content) if listed is None else _of_list(listed))
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        what = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise AnnotationError(f"{path}: is no file of annotations ({what}). {_FORMS}") from error


def _of_coco(content: Mapping[str, Any]) -> Iterator[Annotated]:
    labels = {c["id"]: str(c["name"]) for c in content["categories"]}
    boxes: dict[Any, list[Annotation]] = {image["id"]: [] for image in content["images"]}
    for one in content["annotations"]:
        boxes[one["image_id"]].append(_sized(labels[one["category_id"]], one["bbox"]))
    for image in content["images"]:
        size = _size(image.get("width"), image.get("height"))
        yield Annotated(_name(image["file_name"]), tuple(boxes[image["id"]]), size)


def _of_list(content: Sequence[Mapping[str, Any]]) -> Iterator[Annotated]:
    for entry in content:
        boxes = tuple(_sized(str(o["category"]), o["bbox"]) for o in entry["objects"])
        yield Annotated(_name(entry["file"]), boxes, _size(entry.get("width"), entry.get("height")))


def _of_xml(data: bytes, path: Path) -> Annotated:
    from xml.etree import ElementTree  # few runs need it; what is no XML is a SyntaxError

    root = ElementTree.fromstring(data)
    boxes = []
    for found in root.iter("object"):
        edges = [float(found.findtext(f"bndbox/{n}") or "nan") for n in _EDGES]
        left, top, right, bottom = edges
        boxes.append(_checked(found.findtext("name") or "", left - 1, top - 1, right, bottom))
    if root.tag != "annotation":
        raise ValueError(f"<{root.tag}> in place of <annotation>")
    size = _size(root.findtext("size/width"), root.findtext("size/height"))
    return Annotated(PurePosixPath(path.stem), tuple(boxes), size)


def _name(text: str) -> PurePosixPath:
    return PurePosixPath(str(text).replace("\\", "/"))


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return a size, ``None`` where it is not told, as some tools write 0."""
    return (int(width), int(height)) if width and height and int(width) and int(height) else None


def _sized(label: str, box: Sequence[float]) -> Annotation:
    left, top, width, height = map(float, box)
    return _checked(label, left, top, left + width, top + height)


def _checked(label: str, left: float, top: float, right: float, bottom: float) -> Annotation:
    edges = (left, top, right, bottom)
    if not all(map(math.isfinite, edges)) or right < left or bottom < top:
        raise ValueError(f"the box {[round(e, 1) for e in edges]} of '{label}'")
    return Annotation(label, edges)
