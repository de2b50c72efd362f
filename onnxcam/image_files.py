"""Explain image files and write what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from onnxcam._version import __version__
from onnxcam.animations import Animation, explain_frames
from onnxcam.errors import AnnotationError, ImageError, NotFiniteError, PictureError
from onnxcam.explainer import Explainer
from onnxcam.explanation import Explanation
from onnxcam.files import shown
from onnxcam.imaging.frames import read_frames
from onnxcam.imaging.style import USUAL, Style
from onnxcam.inputs.annotations import Annotations, read_annotations
from onnxcam.inputs.files import find_images
from onnxcam.inputs.others import OtherInput
from onnxcam.outputs import Outputs
from onnxcam.runtime.batching import ahead
from onnxcam.targets.classes import Targets

Found = Sequence[Explanation] | Sequence[Animation] | AnnotationError | ImageError | NotFiniteError


@dataclass(frozen=True)
class FileResult:
    """What became of one image file.

    Attributes:
        path: the image.
        explanations: one a method and target, of an animated GIF those of its first frame; empty
            where it failed.
        records: the same as data, with the names of the written files.
        sheets: names of the written contact sheets, where there are several layers or one was
            asked for.
        error: why it failed, ``None`` where it did not.
    """

    path: Path
    explanations: list[Explanation] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    sheets: list[str] = field(default_factory=list)


class FileRun:
    """Image files that are explained one after another; iterate over it.

    Attributes:
        paths: the images, in order.
        document: what ``explanations.json`` holds of this run: the model's facts, ``images`` that
            are done and ``failed`` ones.
    """

    def __init__(
        self,
        explainer: Explainer,
        paths: Sequence[Path],
        targets: Targets,
        outputs: Outputs,
        inputs: Mapping[str, NDArray[Any]],
        sheet: bool = False,
        texts: Mapping[str, str] | None = None,
        annotations: Annotations | None = None,
    ) -> None:
        """Take what :func:`explain_files` has checked, and which inputs were given as texts."""
        self.paths = paths
        self.document: dict[str, Any] = {
            "onnxcam": __version__,
            "model": describe(explainer),
            "images": [],
            "failed": [],
        }
        self._explainer, self._targets, self._inputs = explainer, targets, inputs
        self._outputs, self._sheet, self._annotations = outputs, sheet, annotations
        self._said = {"inputs": dict(texts)} if texts else {}

    def __iter__(self) -> Iterator[FileResult]:
        """Explain every image, the next one while the present one's pictures are written."""
        self._outputs.look(self.document["model"])
        try:
            for path, found in zip(self.paths, ahead(self.paths, self._look), strict=True):
                yield self._written(path, found)
        finally:  # whatever ends the run early, what is done is recorded
            if self.document["images"]:
                self._outputs.write_records(self.document)

    def _look(self, path: Path) -> Found:
        try:
            frames = read_frames(path)
            if frames is not None:
                return explain_frames(
                    self._frame, frames, self._outputs.arrays, self._outputs.style
                )
            found = self._explainer.explain(path, self._targets, inputs=self._inputs)
            return [self._annotated(e, path) for e in found]
        except (AnnotationError, ImageError, NotFiniteError) as error:
            return error

    def _annotated(self, one: Explanation, path: Path) -> Explanation:
        """Return an explanation with the boxes that were annotated on its image."""
        if self._annotations is None or one.axes != 2:
            return one
        height, width = one.geometry.size
        return replace(one, annotations=self._annotations.of(path, (width, height)))

    def _frame(self, frame: Image.Image) -> list[Explanation]:
        return self._explainer.explain(frame, self._targets, inputs=self._inputs)

    def _written(self, path: Path, found: Found) -> FileResult:
        stem = shown(path.stem)
        try:
            if isinstance(found, Exception):
                raise found
            animations = [a for a in found if isinstance(a, Animation)]
            stills = [e for e in found if isinstance(e, Explanation)]
            records = self._outputs.save(stills, stem, shown(path))
            records += self._outputs.save_animations(animations, stem, shown(path))
            sheets = self._outputs.save_sheets(stills, stem, self._sheet)
        except (AnnotationError, ImageError, NotFiniteError, PictureError) as error:
            self.document["failed"].append({"image": shown(path), "error": shown(error)})
            named = isinstance(error, ImageError | AnnotationError)
            what = str(error) if named else f"{path}: {error}"
            return FileResult(path, error=shown(what))
        done: dict[str, Any] = {"image": shown(path), **self._said, "explanations": records}
        self.document["images"].append(done | ({"sheets": sheets} if sheets else {}))
        return FileResult(path, stills or [a.first for a in animations], records, sheets=sheets)


def explain_files(
    explainer: Explainer,
    images: Sequence[str | Path],
    targets: Targets = None,
    *,
    out: str | Path = "onnxcam-out",
    format: str = "jpg",
    arrays: bool = False,
    inputs: Mapping[str, OtherInput] | None = None,
    style: Style = USUAL,
    sheet: bool = False,
    annotations: Sequence[str | Path] = (),
) -> FileRun:
    """Explain image files; write overlays and ``explanations.json``.

    Of an earlier ``explanations.json`` there nothing is lost, see :mod:`onnxcam.outputs`.

    Nothing is done before the result is iterated over. An image that cannot be explained does not
    end the run: its result says why. An animated GIF, or a short video with the
    extra ``video``, is explained frame by frame, and its overlays are written as animated GIFs.

    Args:
        explainer: the model and the methods.
        images: files, folders or patterns.
        targets: as :meth:`onnxcam.Explainer.explain` takes them.
        out: the folder to write to.
        format: of the overlays, ``"jpg"``, ``"png"`` or ``"webp"``.
        arrays: also write the maps as .npz.
        inputs: the model's other inputs by name, the same for every image; the records say what
            texts among them are.
        style: how the pictures look.
        sheet: also write one contact sheet an image, of all its targets, methods and layers.
        annotations: files of annotated boxes, see :mod:`onnxcam.inputs.annotations`: they are
            drawn, and recorded with how far the map's box and its peak agree with them.

    Returns:
        An iterable of one :class:`FileResult` an image.

    Raises:
        OnnxcamError: a folder without images, a wrong target or input, or a folder that cannot be
            written.
    """
    out = Path(out)
    paths = find_images([str(i) for i in images], out)
    outputs = Outputs(out, format, arrays, style)
    others = explainer.others.check(inputs)
    explainer.resolve(targets)  # a wrong target is found before the first image is read
    texts = {name: value for name, value in (inputs or {}).items() if isinstance(value, str)}
    boxes = read_annotations(annotations) if annotations else None
    if boxes is not None:
        boxes.check(paths)
    return FileRun(explainer, paths, targets, outputs, others, sheet, texts, boxes)


def describe(explainer: Explainer) -> dict[str, Any]:
    """Return what was chosen in the model, for the records."""
    plan = explainer.plan
    shape = None if plan.layer is None else plan.layer.shape
    return {
        "file": shown(explainer.path),
        "modified": _modified(explainer.path),
        "layer": None if plan.layer is None else plan.layer.name,
        "layer_shape": None if shape is None else list(shape),
        "layers": [{"name": t.name, "shape": t.shape and list(t.shape)} for t in plan.layers],
        "methods": [m.label for m in explainer.methods],
        "score": plan.score,
        "score_note": plan.score_note,
        "preprocess": explainer.preprocess_from,
        "providers": explainer.providers,
    }


def _modified(path: Path) -> str | None:
    """Return when a file was last changed: a model that is trained again is another one."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
    except OSError:  # gone meanwhile
        return None
