"""Connect the rooms: model and image in, explanations out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxcam.cache import forget, instrumented
from onnxcam.errors import (
    EngineError,
    ImageError,
    InferenceError,
    InputArrayError,
    LabelsError,
    LayerError,
    ModelError,
    NotFiniteError,
    TargetError,
    WeightsError,
)
from onnxcam.explanation import Explanation
from onnxcam.gradient.interface import Engine
from onnxcam.imaging.preprocess import Preprocess
from onnxcam.inputs import cards
from onnxcam.inputs.images import ImageLike, Inputs, Item
from onnxcam.methods import GradCam
from onnxcam.runtime.batching import ahead
from onnxcam.runtime.device import Traffic
from onnxcam.runtime.session import Providers, Session
from onnxcam.surgeon.plan import CLASSES, RANKS, SIGNED, TARGETS
from onnxcam.targets.classes import Targets, arrange, resolve

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
        providers: Providers = None,
        cache: bool = False,
        engine: Engine = "rules",
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
            providers: ``"cpu"``; ``"cuda"``, an error where it cannot be used; ``"auto"``, CUDA
                where it can; or ONNX Runtime's names.
            cache: keep the instrumented model on disk for the next time, see
                :mod:`onnxcam.cache`.
            engine: who differentiates: ``"rules"``, onnxcam itself, or ``"ort"``, ONNX Runtime's
                gradient builder, which needs the extra ``ort-training`` and one run a target.

        Raises:
            OnnxcamError: see :mod:`onnxcam.errors`; each says what to do.
        """
        self.path = Path(model)
        given = cards.given_cards(preprocess, self.path)
        if layer == "auto":
            layer = next((c.layer for c in given if c.layer is not None), layer)
        if score == "auto":
            score = next((c.score for c in given if c.score is not None), score)
        if engine not in get_args(Engine):
            raise EngineError(f"engine '{engine}': choose one of {', '.join(get_args(Engine))}.")
        self._engine: Engine = engine
        data, self.plan = instrumented(self.path, layer, score, cached=cache, engine=engine)
        extra = [t for t in self.plan.facts.inputs if t.name != self.plan.image.name]
        if extra:
            raise ModelError(
                f"{self.path}: besides the image '{self.plan.image.name}' it takes "
                f"{', '.join(str(t) for t in extra)}; models with more than one input cannot be "
                "explained yet."
            )
        at_hand = cards.all_cards(given, self.plan.facts)
        found = cards.find_preprocess(at_hand, self.path, self.plan.image)
        self.preprocess, self.preprocess_from, warning = found
        for message in (warning, *self.plan.warnings):
            if message:
                warnings.warn(message, stacklevel=2)
        self.labels = self._fit_labels(labels, at_hand)
        self._session = self._load(data, providers)
        self._inputs = Inputs(self.plan.image, self.path)

    def _load(self, data: bytes | Path, providers: Providers) -> Session:
        folder, name = self.path.absolute().parent, self.path.name
        try:
            if isinstance(data, Path) and self.plan.outer:
                # Loaded from a file, older runtimes look for outer weights beside that file only.
                return Session(data.read_bytes(), folder, providers, name)
            return Session(data, folder, providers, name)
        except (InferenceError, OSError):
            if isinstance(data, bytes):
                raise
        # The entry is damaged, or another process made room between the look and the load.
        fresh, _ = instrumented(
            self.path,
            self.plan.layer.name,
            self.plan.score,
            cached=False,
            engine=self._engine,
        )
        session = Session(fresh, folder, providers, name)
        forget(data)
        return session

    @property
    def providers(self) -> list[str]:
        """Execution providers in use, best first."""
        return self._session.providers

    @property
    def traffic(self) -> Traffic:
        """What was moved to and from the GPU so far."""
        return self._session.traffic

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
        if isinstance(image, np.ndarray):
            tensor = self._inputs.check(image)
            if len(tensor) != 1:
                raise InputArrayError(
                    f"array {list(image.shape)} holds {len(tensor)} images: use explain_batch."
                )
            return next(self._explain_array(tensor, [self.resolve(targets)]))
        return next(self._explain_images([image], [self.resolve(targets)]))

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
        if isinstance(images, (str, Path, Image.Image)):
            raise ImageError("explain_batch takes a list of images; for one image use explain.")
        count = len(images)
        if per_image is None:
            resolved = [self.resolve(targets)] * count
        elif targets is not None:
            raise TargetError("give targets or per_image, not both.")
        elif len(per_image) != count:
            raise TargetError(f"per_image has {len(per_image)} entries for {count} images.")
        else:
            resolved = [self.resolve(t) for t in per_image]
        if isinstance(images, np.ndarray):
            return list(self._explain_array(self._inputs.check(images, batch=True), resolved))
        return list(self._explain_images(images, resolved))

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

    def _explain_array(
        self, tensor: NDArray[Any], targets: Sequence[list[int]]
    ) -> Iterator[list[Explanation]]:
        """Explain ready images ``[N, ...]``."""
        item = self._inputs.ready(tensor)
        size = self.plan.image.batch or BATCH

        def prepare(start: int) -> _Batch:
            part = tensor[start : start + size]
            return self._batch(part, [item] * len(part), targets[start : start + size])

        starts = range(0, len(tensor), size)
        # On the CPU nothing is left to prepare that would be worth a thread.
        batches = map(prepare, starts) if self._session.device is None else ahead(starts, prepare)
        for batch in batches:
            yield from self._run(batch)

    def _explain_images(
        self, images: Sequence[ImageLike], targets: Sequence[list[int]]
    ) -> Iterator[list[Explanation]]:
        """Explain photographs, or a list that has ready arrays among them.

        The next batch is decoded (and uploaded) while the present one runs.
        """
        size = self.plan.image.batch or BATCH

        def prepare(start: int) -> list[_Batch]:
            part = images[start : start + size]
            pairs = (self._inputs.prepare(image, self.preprocess) for image in part)
            tensors, items = zip(*pairs, strict=True)
            wanted = targets[start : start + size]
            if len({t.shape for t in tensors}) > 1:  # a dynamic size: one at a time
                singles = zip(tensors, items, wanted, strict=True)
                return [self._batch(tensor, [item], [codes]) for tensor, item, codes in singles]
            whole = np.concatenate(tensors) if len(tensors) > 1 else tensors[0]
            return [self._batch(whole, items, wanted)]

        for batches in ahead(range(0, len(images), size), prepare):
            for batch in batches:
                yield from self._run(batch)

    def _batch(
        self, tensor: NDArray[Any], items: Sequence[Item], targets: Sequence[list[int]]
    ) -> _Batch:
        """Make one run's inputs, the images already on the session's device."""
        count = len(items)
        missing = (self.plan.image.batch or count) - count
        if missing:  # the model takes no fewer: repeat the last image
            tensor = np.concatenate([tensor, *[tensor[-1:]] * missing])
        feeds, rows = {self.plan.image.name: self._session.upload(tensor)}, [[0]] * count
        predicted = all(wanted == [-1] for wanted in targets)  # what the graph does by itself
        if not predicted:
            codes, ranks, rows = arrange(targets)
            if missing:
                codes = np.concatenate([codes, *[codes[:, -1:]] * missing], axis=1)
            feeds |= {TARGETS: codes, RANKS: ranks}
        return _Batch(feeds, len(tensor), items, targets, rows, predicted)

    def _run(self, batch: _Batch) -> list[list[Explanation]]:
        """Run one batch and make its explanations."""
        items, targets, rows = batch.items, batch.targets, batch.rows
        values = self._values(batch.feeds)
        scores, signed = values[self.plan.scores], values[SIGNED].astype(np.float32, copy=False)
        if len(signed) != batch.size or len(scores) != batch.size:
            raise LayerError(
                f"{self.path}: {batch.size} image(s) went in, but the maps of layer "
                f"'{self.plan.layer.name}' have shape {list(signed.shape)}: the first axis of "
                "every tensor must be the images."
            )
        if signed.ndim != 4:
            raise LayerError(
                f"{self.path}: layer '{self.plan.layer.name}' has {signed.ndim - 2} spatial axes; "
                "a heatmap on an image needs two."
            )
        self._check_finite(scores, signed)
        classes = values[CLASSES]
        if not batch.predicted and int(classes.max()) >= scores.shape[1]:
            raise TargetError(
                f"{self.path}: a target is out of range of {scores.shape[1]} classes."
            )
        return [
            [
                self._explanation(items[n], signed[n, t], scores[n], int(classes[t, n]), code)
                for t, code in zip(rows[n], targets[n], strict=True)
            ]
            for n in range(len(items))
        ]

    def _values(self, feeds: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """Run the model: all targets at once, or one after another where the engine needs it."""
        outputs = [self.plan.scores, CLASSES, SIGNED]
        if self._engine == "rules" or TARGETS not in feeds:
            return self._session.run(feeds, outputs)
        runs = [
            self._session.run({**feeds, TARGETS: row[None], RANKS: rank[None]}, outputs)
            for row, rank in zip(feeds[TARGETS], feeds[RANKS], strict=True)
        ]
        return {
            self.plan.scores: runs[0][self.plan.scores],
            CLASSES: np.concatenate([run[CLASSES] for run in runs]),
            SIGNED: np.concatenate([run[SIGNED] for run in runs], axis=1),
        }

    def _explanation(
        self,
        item: Item,
        signed: NDArray[np.float32],
        scores: NDArray[Any],
        target: int,
        code: int,
    ) -> Explanation:
        score = scores[target]
        return Explanation(
            method=GradCam.name,
            layer=self.plan.layer.name,
            score_name=self.plan.score,
            target=target,
            label=self.labels[target] if self.labels and target < len(self.labels) else None,
            score=float(score),
            rank=-code if code < 0 else int((scores > score).sum()) + 1,
            signed=signed,
            source=item.source,
            photo=item.photo,
            geometry=item.geometry,
        )

    def _check_finite(self, scores: NDArray[Any], signed: NDArray[np.float32]) -> None:
        for what, array in (("scores", scores), ("maps", signed)):
            # A finite sum is quickly seen; only where it is not, every value is looked at.
            if not math.isfinite(array.sum()) and not np.isfinite(array).all():
                from onnxcam.model.weights import non_finite_weights

                culprits = non_finite_weights(self.path)
                if culprits:
                    raise WeightsError(
                        f"{self.path}: the {what} are not finite, so there is nothing to explain. "
                        f"The weights {', '.join(culprits)} hold NaN or infinity."
                    )
                raise NotFiniteError(
                    f"{self.path}: the {what} are not finite, so there is nothing to explain. The "
                    "weights are finite, so this input or an overflow is the cause; check the "
                    "preprocessing."
                )


class _Batch(NamedTuple):
    """What one run needs.

    ``size`` counts the images with those that only fill up; ``rows`` are the rows of the run's
    targets that each image wants; ``predicted`` says that all want the predicted class.
    """

    feeds: dict[str, Any]
    size: int
    items: Sequence[Item]
    targets: Sequence[list[int]]
    rows: list[list[int]]
    predicted: bool
