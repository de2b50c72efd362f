"""Connect the rooms: model and image in, explanations out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxcam import cards
from onnxcam.errors import (
    InputArrayError,
    LabelsError,
    LayerError,
    ModelError,
    NotFiniteError,
    TargetError,
)
from onnxcam.explanation import Explanation
from onnxcam.imaging.decode import decode
from onnxcam.imaging.preprocess import Geometry, Preprocess
from onnxcam.methods import GradCam
from onnxcam.runtime.session import Session
from onnxcam.surgeon.plan import CLASSES, GRADIENTS, SCORES, TARGETS, Plan
from onnxcam.targets import Targets, resolve

ImageLike = str | Path | Image.Image | NDArray[Any]
BATCH = 8  # images in one run where the model allows it


class Explainer:
    """Explains the predictions of one exported model.

    The model is instrumented and its session made once; :meth:`explain` may be called from
    several threads.

    Attributes:
        plan: what was chosen in the model: score, layer, image input.
        preprocess: how photographs are prepared, and ``preprocess_from`` where that was found.
        labels: names of the classes, or ``None``.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        layer: str | int = "auto",
        score: str = "auto",
        preprocess: str | Path | Mapping[str, Any] | Preprocess = "auto",
        labels: str | Path | Sequence[str] | None = None,
        providers: str | Sequence[str] | None = None,
    ) -> None:
        """Instrument a model and load it.

        Args:
            model: the .onnx file.
            layer: the tensor to explain: ``"auto"``, the name of a tensor or node, or -1, -2,
                ... counting back from the default.
            score: the tensor of class scores: ``"auto"`` or a name.
            preprocess: ``"auto"``, the name or file of a card, a dict like a card's
                ``[preprocess]`` table, or a :class:`Preprocess`.
            labels: a file with a label a line, or the labels themselves.
            providers: ``"cpu"``, ``"cuda"``, ``"auto"``, or ONNX Runtime's names.

        Raises:
            OnnxcamError: see :mod:`onnxcam.errors`; each says what to do.
        """
        self.path = Path(model)
        data, self.plan = _instrument(self.path, layer, score)
        extra = [t for t in self.plan.facts.inputs if t.name != self.plan.image.name]
        if extra:
            raise ModelError(
                f"{self.path}: besides the image '{self.plan.image.name}' it takes "
                f"{', '.join(str(t) for t in extra)}; models with more than one input cannot be "
                "explained yet."
            )
        # What no image could be prepared with is only an error once a photograph comes.
        found = cards.find_preprocess(preprocess, self.path, self.plan.facts, self.plan.image)
        self.preprocess, self.preprocess_from, warning, at_hand = found
        for message in (warning, *self.plan.warnings):
            if message:
                warnings.warn(message, stacklevel=2)
        self.labels = self._fit_labels(labels, at_hand)
        self._session = Session(data, self.path.resolve().parent, providers)
        self._method = GradCam()

    @property
    def providers(self) -> list[str]:
        """Execution providers in use, best first."""
        return self._session.providers

    def explain(self, image: ImageLike, targets: Targets = None) -> list[Explanation]:
        """Explain one image.

        Args:
            image: a path, a PIL image, or a ready array ``[C,H,W]`` or ``[1,C,H,W]`` (channels
                last where the model takes them so), which is not preprocessed.
            targets: a class index, a label, ``"top:K"`` or a list of these; ``None`` is the
                predicted class.

        Returns:
            One explanation a target, in the order of the targets.

        Raises:
            OnnxcamError: a bad image, array or target, or a run that is not finite.
        """
        if isinstance(image, np.ndarray) and image.ndim == 4 and len(image) != 1:
            raise InputArrayError(
                f"array {list(image.shape)} holds {len(image)} images: use explain_batch."
            )
        return next(self._explain_many([image], [self.resolve(targets)]))

    def explain_batch(
        self,
        images: Sequence[ImageLike] | NDArray[Any],
        targets: Targets = None,
        *,
        per_image: Sequence[Targets] | None = None,
    ) -> list[list[Explanation]]:
        """Explain many images.

        Args:
            images: images as :meth:`explain` takes them, or one array ``[N, ...]``.
            targets: the same targets for every image.
            per_image: targets of each image, in place of ``targets``.

        Returns:
            For each image a list as :meth:`explain` gives it.

        Raises:
            TargetError: both kinds of targets are given, or not one entry an image.
        """
        batch = list(images)
        if per_image is None:
            resolved = [self.resolve(targets)] * len(batch)
        elif targets is not None:
            raise TargetError("give targets or per_image, not both.")
        elif len(per_image) != len(batch):
            raise TargetError(f"per_image has {len(per_image)} entries for {len(batch)} images.")
        else:
            resolved = [self.resolve(t) for t in per_image]
        return list(self._explain_many(batch, resolved))

    def resolve(self, targets: Targets) -> list[int]:
        """Return class indices; ``-r`` stands for rank ``r`` in the prediction.

        Raises:
            TargetError: an unknown or ambiguous label, or an index or rank out of range.
        """
        return resolve(targets, self.plan.classes, self.labels)

    def _fit_labels(
        self, requested: str | Path | Sequence[str] | None, at_hand: list[cards.Card]
    ) -> tuple[str, ...] | None:
        """Return labels, refused when their number is not the model's."""
        classes = self.plan.classes
        if requested is not None:
            labels = cards.read_labels(requested)
            if classes is not None and len(labels) != classes:
                raise LabelsError(f"{len(labels)} labels for a model of {classes} classes.")
            return labels
        for card in at_hand:
            if card.labels is not None and classes in (None, len(card.labels)):
                return card.labels
        return None

    def _explain_many(
        self, images: Sequence[ImageLike], targets: Sequence[list[int]]
    ) -> Iterator[list[Explanation]]:
        fixed = self.plan.image.batch
        size = fixed or BATCH
        for start in range(0, len(images), size):
            prepared = [self._prepare(image) for image in images[start : start + size]]
            wanted = targets[start : start + size]
            if fixed is None and len({p.tensor.shape for p in prepared}) > 1:
                for item, codes in zip(prepared, wanted, strict=True):
                    yield from self._run([item], [codes])
            else:
                yield from self._run(prepared, wanted)

    def _prepare(self, image: ImageLike) -> _Prepared:
        takes = self.plan.image
        if isinstance(image, np.ndarray):
            tensor = self._check_array(image)
            height, width = tensor.shape[2:] if takes.layout == "NCHW" else tensor.shape[1:3]
            return _Prepared(tensor, Geometry.identity(height, width), None, None)
        photo = decode(image)
        tensor, geometry = self.preprocess.apply(photo, takes.layout, takes.dtype)
        source = str(image) if isinstance(image, (str, Path)) else None
        return _Prepared(tensor, geometry, photo, source)

    def _check_array(self, array: NDArray[Any]) -> NDArray[Any]:
        takes = self.plan.image
        sizes = (takes.height or "H", takes.width or "W")
        expected: tuple[int | str, ...] = (takes.channels, *sizes)
        if takes.layout == "NHWC":
            expected = (*sizes, takes.channels)
        tensor = array if array.ndim == 4 else array[None]
        fits = tensor.ndim == 4 and all(
            isinstance(e, str) or e == n for e, n in zip(expected, tensor.shape[1:], strict=True)
        )
        if not fits or len(tensor) != 1 or 0 in tensor.shape:
            raise InputArrayError(
                f"array of shape {list(array.shape)}: '{takes.name}' takes "
                f"[{', '.join(map(str, expected))}], with or without a leading 1."
            )
        if str(array.dtype) != takes.dtype:
            raise InputArrayError(
                f"array of dtype {array.dtype}: '{takes.name}' takes {takes.dtype}. "
                f"Convert it with .astype('{takes.dtype}')."
            )
        return tensor

    def _run(
        self, prepared: Sequence[_Prepared], targets: Sequence[list[int]]
    ) -> list[list[Explanation]]:
        """Run one batch and make its explanations."""
        count, fixed = len(prepared), self.plan.image.batch
        rows = list(range(count)) + [count - 1] * ((fixed or count) - count)
        depth = max(len(codes) for codes in targets)
        codes = np.full((depth, len(rows)), -1, np.int64)
        for column, row in enumerate(rows):
            codes[: len(targets[row]), column] = targets[row]
        tensors = [prepared[row].tensor for row in rows]
        feeds = {
            self.plan.image.name: np.concatenate(tensors) if len(tensors) > 1 else tensors[0],
            TARGETS: codes,
        }
        layer = self.plan.layer.name
        values = self._session.run(feeds, [SCORES, CLASSES, layer, GRADIENTS])
        if values[layer].shape[0] != len(rows) or values[SCORES].shape[0] != len(rows):
            raise LayerError(
                f"{self.path}: {len(rows)} image(s) went in, but the layer '{layer}' has shape "
                f"{list(values[layer].shape)}: its first axis must be the images."
            )
        self._check_finite(values, layer)
        activations = values[layer].astype(np.float32, copy=False)
        gradients = values[GRADIENTS].astype(np.float32, copy=False).swapaxes(0, 1)
        signed = self._method.signed(activations, gradients)
        return [
            [
                self._explanation(prepared[n], signed[n, t], values, n, t)
                for t in range(len(targets[n]))
            ]
            for n in range(count)
        ]

    def _explanation(
        self,
        item: _Prepared,
        signed: NDArray[np.float32],
        values: Mapping[str, NDArray[Any]],
        n: int,
        t: int,
    ) -> Explanation:
        if signed.ndim != 2:
            raise LayerError(
                f"layer '{self.plan.layer.name}' has {signed.ndim} spatial axes; a heatmap on an "
                "image needs two."
            )
        scores, target = values[SCORES][n], int(values[CLASSES][t, n])
        return Explanation(
            method=self._method.name,
            layer=self.plan.layer.name,
            score_name=self.plan.score,
            target=target,
            label=self.labels[target] if self.labels and target < len(self.labels) else None,
            score=float(scores[target]),
            rank=int((scores > scores[target]).sum()) + 1,
            raw=np.maximum(signed, 0),
            signed=signed,
            source=item.source,
            photo=item.photo,
            view=item.geometry.view(signed.shape[0], signed.shape[1]),
        )

    def _check_finite(self, values: Mapping[str, NDArray[Any]], layer: str) -> None:
        for name, what in ((SCORES, "scores"), (layer, "activations"), (GRADIENTS, "gradients")):
            if not np.isfinite(values[name]).all():
                from onnxcam.surgeon.weights import non_finite_weights

                culprits = non_finite_weights(self.path)
                cause = (
                    f"The weights {', '.join(culprits)} hold NaN or infinity."
                    if culprits
                    else "The weights are finite, so the input or an overflow is the cause; "
                    "check the preprocessing."
                )
                raise NotFiniteError(
                    f"{self.path}: the {what} are not finite, so there is nothing to explain. "
                    f"{cause}"
                )


class _Prepared:
    """One image, ready for the model."""

    __slots__ = ("geometry", "photo", "source", "tensor")

    def __init__(
        self,
        tensor: NDArray[Any],
        geometry: Geometry,
        photo: NDArray[np.uint8] | None,
        source: str | None,
    ) -> None:
        self.tensor = tensor
        self.geometry = geometry
        self.photo = photo
        self.source = source


def _instrument(path: Path, layer: str | int, score: str) -> tuple[bytes, Plan]:
    from onnxcam.surgeon.instrument import instrument  # onnx is imported only for surgery

    return instrument(path, layer, score)
