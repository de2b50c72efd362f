"""The record of one explanation: one image, one target."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxcam.errors import OutputError
from onnxcam.files import FORMATS, save_picture, shown, write_atomically
from onnxcam.imaging.boxes import NAMES, Annotation, annotation_records, with_boxes
from onnxcam.imaging.colour import colour_table
from onnxcam.imaging.drawn import blended, enlarged, grey, lines, montage
from onnxcam.imaging.pixels import captioned, centred, diverging, evidence, intensity
from onnxcam.imaging.preprocess import Geometry
from onnxcam.imaging.segments import largest_segment
from onnxcam.imaging.smooth import smoothed
from onnxcam.imaging.style import USUAL, Style
from onnxcam.kernels import Axis, View, kernels
from onnxcam.kernels.reference import opacity
from onnxcam.kernels.space import upsample
from onnxcam.methods.base import Space
from onnxcam.notebook import Shown
from onnxcam.notes import CAPTIONS, TEXTS, Note

if TYPE_CHECKING:
    from onnxcam.imaging.captions import Bar
    from onnxcam.targets.detections import Detected


@dataclass(frozen=True, eq=False)
class Explanation(Shown):
    """Why the model gives one target its score on one image.

    Attributes:
        method: name of the method, ``"grad-cam"``.
        space: where the map lies, ``"layer"`` or ``"input"``.
        layer: name of the explained tensor, that of the image input for maps at the input; of
            several whose maps became one ``"mean:a,b"``.
        score_name: name of the score tensor.
        target: class index, ``None`` for an element.
        element: the explained element as the user named it, ``None`` for a class.
        label: the class's name, ``None`` when labels are not known.
        score: value of the score, before Softmax or Sigmoid.
        rank: place of the target in the prediction, 1 the predicted class; ``None`` for elements.
        signed: map before the ReLU, float32: ``[*S]`` at the layer's own resolution; at the input
            ``[C, *S]``, or ``[*S]`` where the method has no channels. ``S`` is ``[H, W]`` of
            images, ``[L]`` of signals, ``[D, H, W]`` of volumes.
        source: the image's name, ``None`` for arrays and PIL images.
        photo: the explained photograph, ``[H, W, 3]`` uint8, ``None`` for arrays.
        geometry: where the photograph, signal or volume lies in the input tensor.
        given: the explained signal, volume or array, ``[C, *S]``; ``None`` for photographs, and for
            the map of a spectrum, which has other axes than its signal.
        changed: nodes that the method changed on the way back: how many rectifiers were guided.
        negative: nodes that read negative activations, where the method takes none.
        note: what keeps the map from being an explanation, see :mod:`onnxcam.notes`; ``""`` for
            nothing.
        detected: a detector's detections on the image, and which one is explained.
        annotations: boxes that somebody drew on the photograph.
        probability: of a class, where the model has Softmax or Sigmoid after the score.
        bgr: whether the input's channels are blue, green, red.
        layers: names of the explained tensors; none for maps at the input.
        channels: how many channels the layer has, where it is one and that is known.
        on_device: the raw map on the GPU, where it was made there: pictures are then painted there.
    """

    method: str
    space: Space
    layer: str
    score_name: str
    target: int | None
    element: str | None
    label: str | None
    score: float
    rank: int | None
    signed: NDArray[np.float32] = field(repr=False)
    source: str | None
    photo: NDArray[np.uint8] | None = field(repr=False)
    geometry: Geometry = field(repr=False)
    changed: tuple[str, ...] = field(default=(), repr=False)
    negative: tuple[str, ...] = ()
    note: Note = ""
    given: NDArray[Any] | None = field(default=None, repr=False)
    detected: Detected | None = field(default=None, repr=False)
    probability: float | None = None
    annotations: tuple[Annotation, ...] = field(default=(), repr=False)
    bgr: bool = field(default=False, repr=False)
    layers: tuple[str, ...] = ()
    channels: int | None = None
    on_device: Any = field(default=None, repr=False)

    @cached_property
    def raw(self) -> NDArray[np.float32]:
        """The map without its sign, ``[*S]`` float32, not normalised.

        Of a layer's map what speaks for the target, rectified; of a map at the input the largest
        absolute value over channels.
        """
        if self.space == "layer":
            return np.maximum(self.signed, 0)
        size = np.abs(self.signed)
        return size.max(axis=0) if size.ndim > self.axes else size

    @property
    def axes(self) -> int:
        """The number of spatial axes: 2 of images, 1 of signals, 3 of volumes."""
        return len(self.geometry.placements)

    @cached_property
    def places(self) -> list[Axis]:
        """Where the map lies on what was explained, axis by axis."""
        return self.geometry.axes(self.signed.shape[-self.axes :])

    @property
    def view(self) -> View:
        """Where the map lies on the photograph; of a volume on each slice."""
        *others, columns = self.places
        return View(others[-1] if others else Axis.whole(1, 1), columns)

    @cached_property
    def heatmap(self) -> NDArray[np.float32]:
        """The map on the photograph, ``[H, W]`` float32 in 0..1; on a signal or volume ``[*S]``.

        The raw map is resized once, linear along each axis with half-pixel centres, and divided by
        its maximum over the visible pixels; an all-zero map stays zero, and rounding noise is taken
        for zero. Where the network did not look it is 0, see :attr:`visible`.
        """
        if self.note == "noise":
            return np.zeros([a.length for a in self.places], np.float32)
        if self.on_device is not None:
            from onnxcam.kernels import cuda

            made = cuda.to_host(cuda.upsample(self.on_device, self.view, normalise=True))
            return np.asarray(np.minimum(made, np.float32(1)))
        heat = upsample(self.raw, self.places)
        peak = float(heat.max(initial=0.0))
        return np.minimum(heat / np.float32(peak), np.float32(1)) if peak > 0 else heat

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Mask ``[*S]`` of the pixels that the network saw; cropped borders are ``False``."""
        mask = np.zeros([a.length for a in self.places], np.bool_)
        mask[tuple(slice(a.first, a.last) for a in self.places)] = True
        return mask

    @property
    def peak(self) -> tuple[int, ...] | None:
        """Column and row of the heatmap's largest value, in pixels of the photograph.

        Of a signal its place alone, of a volume the slice too: ``(x, y, z)``. ``None`` where the
        map says nothing, see ``note``.
        """
        if self.note:
            return None
        found = np.unravel_index(int(self.heatmap.argmax()), self.heatmap.shape)
        return tuple(int(i) for i in found[::-1])

    @cached_property
    def segment(self) -> tuple[int, int, int, int] | None:
        """The map's box, see :func:`onnxcam.imaging.segments.largest_segment`.

        ``None`` where the map says nothing, and of signals and volumes.
        """
        return None if self.note or self.axes != 2 else largest_segment(self.heatmap)

    def overlay(self, style: Style = USUAL, **options: Any) -> Image.Image:
        """Return the photograph with the heatmap over it, or a map at the input as a picture.

        Cold places show the photograph as it is, hot ones the colours. Ready arrays are shown in
        grey levels, a signal as lines before coloured places, a volume as up to sixteen of its
        slices. A detection's box is drawn, and those of annotations.

        Maps at the input with channels are shown in their own colours, centred on grey; without
        channels in red and blue, for and against the target; ``saliency`` as its size. A map that
        says nothing is not painted, one of evidence against alone in blue; a line says so.

        Args:
            style: how the picture looks.
            options: of :class:`onnxcam.Style`, in place of the style's: ``alpha=0.8``.

        Raises:
            PictureError: an unknown colour map, or a weight out of range.
        """
        style = replace(style, **options) if options else style
        picture = self._overlay(style)
        found = None if self.detected is None else self.detected.one
        of_map = self.segment if style.map_box else None
        picture = with_boxes(picture, self.annotations, of_map, found)
        if not (style.side_by_side or style.caption):
            return picture
        from onnxcam.imaging.captions import beside, with_strip

        if style.side_by_side and (plain := self._plain()) is not None:
            picture = beside(plain, picture)
        return with_strip(picture, self._said(), self._bar(style)) if style.caption else picture

    def _overlay(self, style: Style) -> Image.Image:
        """Return the picture of the map."""
        alpha, shade, table = style.alpha, style.shade, colour_table(style.colours)
        if self.axes != 2 or (self.photo is None and self.given is None):
            return self._drawn(style)
        if self.space == "input" and not self.note:
            return Image.fromarray(self._pixels(alpha))
        if self.note:
            return captioned(self._against(alpha), CAPTIONS[self.note])
        if style.smooth:
            view = View(*(replace(a, scale=1.0, offset=0.0) for a in self.places))
            painted = kernels().paint(self._backdrop, self._smooth, view, table, alpha, shade)
            return Image.fromarray(painted)
        if self.on_device is None:
            return Image.fromarray(
                kernels().paint(self._backdrop, self.raw, self.view, table, alpha, shade)
            )
        from onnxcam.kernels import cuda

        photo, colour_map = cuda.sent(self._backdrop), cuda.sent(table)
        painted = cuda.paint(photo, self.on_device, self.view, colour_map, alpha, shade)
        return Image.fromarray(cuda.to_host(painted))

    def _against(self, alpha: float) -> NDArray[np.uint8]:
        """Return the photograph with what speaks against the target, if anything does."""
        if self.note != "negative":
            return self._backdrop
        return diverging(kernels().upsample(self.signed, self.view), self._backdrop, alpha)

    @cached_property
    def _backdrop(self) -> NDArray[np.uint8]:
        """What is painted on, ``[*S, 3]``: the photograph, or an array in grey levels."""
        if self.photo is not None:
            return self.photo
        assert self.given is not None
        return grey(self.given)

    @cached_property
    def _smooth(self) -> NDArray[np.float32]:
        """The heatmap of smooth pictures: resized by cubic convolution."""
        return smoothed(self.raw, self.places)

    def _plain(self) -> Image.Image | None:
        """Return what was explained as it is; ``None`` where there is only a map."""
        if self.axes == 2 and self.photo is not None:
            return Image.fromarray(self.photo)
        if self.given is None:
            return None
        if self.axes == 1:
            return lines(self.given, np.full((1, self.given.shape[-1], 3), 255, np.uint8))
        peak = self.peak
        if self.axes == 3:
            return montage(self._backdrop, None if peak is None else peak[2])
        return Image.fromarray(self._backdrop)

    def _said(self) -> list[str]:
        """Return the lines of a caption."""
        found = None if self.detected is None else self.detected.one
        name = f"class {self.target}" if self.target is not None else self.element or ""
        share = self.probability if found is None else found.probability
        number = f"score {self.score:.4g}" if share is None else f"probability {share:.2f}"
        name = name if found is None else found.name
        return [f"{self.label or name}, {number}", f"{self.method}, {self.layer}"]

    def _bar(self, style: Style) -> Bar:
        """Return the colours of a caption's bar, and what its ends mean."""
        from onnxcam.imaging.captions import NO_BAR, evidence_bar, heat_bar

        if self.note:
            return NO_BAR
        if self.space == "layer":
            alone = self.given is None and self.photo is None
            return heat_bar(colour_table(style.colours), 1.0 if alone else style.alpha)
        signs = self.axes != 2 or self.signed.ndim == 2
        return evidence_bar(style.alpha) if signs else NO_BAR

    def _drawn(self, style: Style) -> Image.Image:
        """Return the picture of a signal, a volume, or a map alone."""
        table = colour_table(style.colours)
        smooth = style.smooth and self.space == "layer" and not self.note
        heatmap = self._smooth if smooth else self.heatmap
        if self.given is None:
            levels = np.rint(heatmap * 255).astype(np.intp)
            return (
                enlarged(table[levels])
                if self.axes == 2
                else lines(levels[None], table[levels][None])
            )
        if self.note == "noise" or (self.space == "layer" and self.note != "negative"):
            heat = heatmap[None]
            weight = opacity(heat, style.alpha)[..., None]
            colours = table[np.rint(heat * 255).astype(np.intp)]
        else:
            signed = upsample(np.ascontiguousarray(self.signed), self.places)
            signed = signed if signed.ndim > self.axes else signed[None]
            if self.axes == 3:
                signed = signed.sum(axis=0, keepdims=True)
            colours, size = evidence(signed)
            weight = style.alpha * size
        if self.axes == 1:
            white = np.full(colours.shape, 255, np.uint8)
            picture = lines(self.given, blended(white, colours, weight))
        else:
            peak = self.peak
            slices = blended(self._backdrop, colours[0], weight[0])
            picture = montage(slices, None if peak is None else peak[2])
        return captioned(np.asarray(picture), CAPTIONS[self.note]) if self.note else picture

    def _pixels(self, alpha: float) -> NDArray[np.uint8]:
        """Return the picture of a map at the input."""
        maps = kernels().upsample(np.ascontiguousarray(self.signed), self.view)
        if maps.ndim == 2:
            return diverging(maps, self._backdrop, alpha)
        if self.method == "saliency" or len(maps) != 3:
            return intensity(np.abs(maps).max(axis=0))
        return centred(maps[::-1] if self.bgr else maps)

    def save(self, path: str | Path, style: Style = USUAL) -> Path:
        """Write the overlay (.png, .jpg, .webp), the arrays (.npz) or the record (.json).

        Args:
            path: its suffix says what is written.
            style: how the overlay looks.

        Raises:
            OutputError: another suffix, or the place cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in FORMATS:
            return save_picture(self.overlay(style), path)
        if suffix == ".npz":

            def write(file: BinaryIO) -> None:
                np.savez_compressed(
                    file,
                    raw=self.raw,
                    signed=self.signed,
                    heatmap=self.heatmap,
                    visible=self.visible,
                )

            return write_atomically(path, write)
        if suffix == ".json":
            text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
            return write_atomically(path, lambda file: file.write(text.encode()))
        known = ", ".join([*FORMATS, ".npz", ".json"])
        raise OutputError(f"{path}: unknown suffix '{suffix}'. Use one of {known}.")

    def _detections(self) -> dict[str, Any]:
        if self.detected is None or self.detected.one is None:
            return {}
        every = [d.to_dict() for d in self.detected.every]
        return {"detection": self.detected.one.to_dict(), "detections": every}

    def _annotations(self) -> dict[str, Any]:
        if not self.annotations:
            return {}
        from onnxcam.targets.corners import overlaps

        own, boxes = self.segment, np.array([a.box for a in self.annotations])
        shared = None if own is None else overlaps(np.array(own, np.float64), boxes).tolist()
        return {"annotations": annotation_records(self.annotations, shared, self.peak)}

    def to_dict(self) -> dict[str, Any]:
        """Return the record without its arrays, ready for JSON."""
        peak, axes, box = self.peak, self.places[::-1], self.segment
        sizes = ("width", "height", "depth") if len(axes) > 1 else ("length",)
        first, last = ("left", "top", "front"), ("right", "bottom", "back")
        visible = {name: a.first for name, a in zip(first, axes, strict=False)}
        visible |= {name: a.last for name, a in zip(last, axes, strict=False)}
        return {
            "image": None if self.source is None else shown(self.source),
            "method": self.method,
            "space": self.space,
            "layer": self.layer,
            "layers": list(self.layers),
            "score_name": self.score_name,
            "target": self.element if self.target is None else self.target,
            "label": self.label,
            "score": self.score,
            "probability": self.probability,
            "rank": self.rank,
            "size": {name: a.length for name, a in zip(sizes, axes, strict=False)},
            "visible": visible,
            "peak": None if peak is None else dict(zip("xyz", peak, strict=False)),
            "segment": box and dict(zip(NAMES, box, strict=True)),
            "note": TEXTS[self.note] or None,
            "raw": {
                "shape": list(self.raw.shape),
                "max": float(self.raw.max(initial=0.0)),
                "min_signed": float(self.signed.min(initial=0.0)),
            },
            **self._detections(),
            **self._annotations(),
            "changed": len(self.changed),
            "negative": list(self.negative),
        }
