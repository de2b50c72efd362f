"""Connect the rooms: model and image in, explanations out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxcam.batch import Wanted, kind_of
from onnxcam.errors import (
    EngineError,
    ImageError,
    InputArrayError,
    LayerError,
    MethodError,
    ModelError,
    TargetError,
)
from onnxcam.explanation import Explanation
from onnxcam.feeds import feeds_of
from onnxcam.gradient.interface import Engine
from onnxcam.imaging.preprocess import Preprocess
from onnxcam.inputs import cards
from onnxcam.inputs.images import ImageLike, Inputs
from onnxcam.inputs.others import OtherInput, Others
from onnxcam.inputs.sizes import size_told
from onnxcam.job import Job, Setup
from onnxcam.layers import read_layers
from onnxcam.meaning import Meaning
from onnxcam.methods.base import Method
from onnxcam.methods.registry import find_method
from onnxcam.notebook import Explanations
from onnxcam.runner import Program, Runner
from onnxcam.runtime.device import Traffic
from onnxcam.runtime.session import Providers
from onnxcam.surgeon.plan import DetectorFacts, of_images
from onnxcam.surgeon.words import DETECTIONS, EMBEDDING, WEIGHTED
from onnxcam.targets.classes import Targets
from onnxcam.targets.weighted import Similarity

if TYPE_CHECKING:
    from onnx import ModelProto

_USUAL, _OF_BOXES = "grad-cam", "layer-cam"
_WIDER = " With ':wide=1' it acts on LeakyRelu, PRelu, gates and Gelu too."


class Explainer:
    """Explains the predictions of one exported model.

    The model is instrumented and its session made once; :meth:`explain` may be called from
    several threads.

    Attributes:
        plan: what was chosen in the model: score, layer, image input.
        preprocess: how photographs are prepared, and ``preprocess_from`` where that was found.
        labels: names of the classes, or ``None``.
        others: the model's inputs besides the image.
    """

    def __init__(
        self,
        model: str | Path | bytes | ModelProto,
        *,
        layer: str | int | Sequence[str | int] = "auto",
        score: str = "auto",
        preprocess: str | Path | Mapping[str, Any] | Preprocess = "auto",
        labels: str | Path | Sequence[str] | None = None,
        providers: Providers = None,
        cache: bool = False,
        engine: Engine = "rules",
        method: str | Method | Sequence[str | Method] = "auto",
        pixel_range: tuple[float, float] | None = None,
        grid: tuple[int, int] | None = None,
    ) -> None:
        """Instrument a model and load it.

        Args:
            model: the .onnx file, its content, or an ``onnx.ModelProto``.
            layer: the tensor to explain: ``"auto"``, the name of a tensor or node, or -1, -2,
                ... counting back from the default; a list of these, each with explanations of
                its own; ``"mean:a,b"``, ``"max:a,b"`` or ``"product:a,b"``, the maps of several in
                one; or ``"sweep"``, up to eight layers from deep to shallow.
            score: the tensor of class scores: ``"auto"`` or a name.
            preprocess: ``"auto"``, the name or file of a card, a dict like a card's
                ``[preprocess]`` table, or a :class:`Preprocess`.
            labels: a file with a label a line, or the labels themselves.
            providers: ``"cpu"``; ``"cuda"``, an error where it cannot be used; ``"auto"``, CUDA
                where it can; or ONNX Runtime's names.
            cache: keep the instrumented model on disk for the next time, see
                :mod:`onnxcam.cache`.
            engine: the gradient engine: ``"rules"``, onnxcam's own, or ``"ort"``, ONNX Runtime's
                gradient builder, which needs the extra ``ort-training`` and one run a target.
            method: how to explain: ``"auto"``, grad-cam, or for boxes layer-cam, whose map
                keeps to the box; or by name (``onnxcam methods`` lists them; with parameters
                ``"occlusion:size=24,stride=8"``), a :class:`~onnxcam.methods.base.Method`, or
                several, which share one run.
            pixel_range: what is black and what white in grey pictures of more than 8 bits, in
                their own numbers; by default what the file or its type says.
            grid: rows and columns of patches in a transformer's tokens, where the model does not
                tell them; other tokens come before the patches.

        Raises:
            OnnxcamError: see :mod:`onnxcam.errors`; each says what to do.
        """
        self.path = self._file(model)
        if pixel_range is not None and not pixel_range[0] < pixel_range[1]:
            raise ImageError(f"pixel_range {pixel_range}: the first must be below the second.")
        self._chosen = method != "auto"
        method = method if self._chosen else _USUAL
        wanted = [method] if isinstance(method, (str, Method)) else list(method)
        self.methods = [find_method(m) for m in wanted]
        if not self.methods:
            raise MethodError("no method given: the list is empty.")
        given = cards.given_cards(preprocess, self.path, labels is None)
        if layer == "auto":
            layer = next((c.layer for c in given if c.layer is not None), layer)
        if score == "auto":
            score = next((c.score for c in given if c.score is not None), score)
        if engine not in get_args(Engine):
            raise EngineError(f"engine '{engine}': choose one of {', '.join(get_args(Engine))}.")
        self._engine: Engine = engine
        self._layers = read_layers(layer, any(m.joins for m in self.methods))
        self._runner = Runner(
            self.path,
            layers=self._layers.wanted,
            score=score,
            grid=_patches(grid),
            engine=engine,
            providers=providers,
            cached=cache,
            by_turns=any(m.drive for m in self.methods),
        )
        of_boxes = None if self._chosen else [find_method(_OF_BOXES)]
        self._default = self._runner.program(self.methods, kernels=True, of_boxes=of_boxes)
        self.plan = self._default.plan
        if of_boxes is not None and self.plan.detector is not None:
            self.methods = of_boxes
        at_input = next((m.name for m in self.methods if m.space != "layer"), None)
        several = self.plan.detector is None and self._layers.several(len(self.plan.layers))
        if at_input is not None and several:
            raise MethodError(
                f"method '{at_input}' explains the image input, so it goes with one layer; "
                "--layer auto for one."
            )
        at_hand = cards.all_cards(given, self.plan.facts)
        told = {kind for t in self.plan.facts.inputs if (kind := of_images(t))}
        found = cards.find_preprocess(
            at_hand, self.path, self.plan.image, self.plan.detector is not None, told
        )
        self.preprocess, self.preprocess_from, warning = found
        self.labels, passed_over = cards.find_labels(
            labels,
            at_hand,
            self.plan,
            certain=score == "auto",  # else those of another output
        )
        said = (warning, *self.plan.warnings, *self._without_effect(), *passed_over)
        for message in filter(None, said):
            warnings.warn(message, stacklevel=2)
        self._session = self._default.session
        self._inputs = Inputs(self.plan.image, self.path, pixel_range)
        self.others = Others(self.plan, self.path, at_hand)
        self._meaning = Meaning(self.plan, self.labels, self.path, self._reading)

    def _file(self, model: str | Path | bytes | ModelProto) -> Path:
        """Return the model's file; one that lies in memory is written to a temporary one."""
        if isinstance(model, (str, Path)):
            return Path(model)
        if isinstance(model, bytes):
            data = model
        elif hasattr(model, "SerializeToString"):
            data = model.SerializeToString()
        else:
            raise ModelError(
                f"{type(model).__name__} is no model: give a path, bytes or an onnx.ModelProto."
            )
        from tempfile import TemporaryDirectory

        self._folder = TemporaryDirectory(prefix="onnxcam-")  # removed with the explainer
        path = Path(self._folder.name) / "model.onnx"
        path.write_bytes(data)
        return path

    def _without_effect(self) -> list[str]:
        """Return a warning for each method that acts on rectifiers and found none."""
        return [
            f"{self.path}: no rectifier (Relu, Clip at 0) lies between the tensors, so "
            f"'{m.name}' changes nothing.{_WIDER if 'wide' in m.parameters else ''}"
            for m in self.methods
            if "rectifiers" in m.needs and not self.plan.parts[m.label].changed
        ]

    @property
    def program(self) -> Program:
        """The instrumented model of the methods, loaded."""
        return self._default

    @property
    def providers(self) -> list[str]:
        """Execution providers in use, best first."""
        return self._session.providers

    @property
    def traffic(self) -> Traffic:
        """What was moved to and from the GPU so far."""
        return self._session.traffic

    def explain(
        self,
        image: ImageLike,
        targets: Targets = None,
        *,
        inputs: Mapping[str, OtherInput] | None = None,
    ) -> Explanations[Explanation]:
        """Explain one image.

        Args:
            image: a path, a PIL image, the bytes of a file or an open one, 8-bit RGB pixels
                ``[H,W,3]`` (OpenCV's are BGR: turn them around) or greys ``[H,W]``; or a ready
                array as the model takes it, which is not preprocessed: ``[C,H,W]`` or
                ``[1,C,H,W]`` of images, ``[C,L]`` of signals, ``[C,D,H,W]`` of volumes. A path may
                be that of a .npy, .wav or NIfTI file.
            targets: a class index, a label, ``"top:K"``, an element ``"NAME[5,3]"`` of any tensor
                (indices of one image's part of it), a slice of one ``"NAME[:,3]:mean"``,
                ``"dog - cat"``, ``"best of dog,cat"``, ``"region:person"``,
                ``"region:person@120,80"``, ``"step:12"``, ``"text:a boot"``, what
                :meth:`similar_to` returns, or a list of these; ``None`` is the predicted class.
                See ``docs/targets.md``.
            inputs: the model's other inputs by name: arrays, with a batch axis of 1 or without it;
                numbers, which fill them; or texts, where a card tells how to read them.

        Returns:
            A list, one explanation a layer, method and target, in this order.

        Raises:
            OnnxcamError: a bad image, array, input or target, or a run that is not finite.
        """
        if isinstance(image, np.ndarray) and not self._inputs.is_photograph(image):
            tensor = self._inputs.check(image)
            if len(tensor) != 1:
                raise InputArrayError(
                    f"array {list(image.shape)} holds {len(tensor)} images: use explain_batch."
                )
            return self._explained(tensor, [self.resolve(targets)], inputs)[0]
        return self._explained([image], [self.resolve(targets)], inputs)[0]

    def explain_batch(
        self,
        images: Sequence[ImageLike] | NDArray[Any],
        targets: Targets = None,
        *,
        per_image: Sequence[Targets] | None = None,
        inputs: Mapping[str, OtherInput] | None = None,
    ) -> list[Explanations[Explanation]]:
        """Explain many images.

        Args:
            images: images as :meth:`explain` takes them, or one array ``[N, ...]``.
            targets: the same targets for every image.
            per_image: targets of each image, in place of ``targets``.
            inputs: the model's other inputs by name, the same for every image.

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
        if isinstance(images, np.ndarray) and count and self._inputs.is_photograph(images[0]):
            images = list(images)
        elif isinstance(images, np.ndarray):
            images = self._inputs.check(images, batch=True)
        return self._explained(images, resolved, inputs)

    def resolve(self, targets: Targets) -> list[Wanted]:
        """Return what targets mean: classes, ranks, elements.

        Raises:
            TargetError: an unknown or ambiguous label, or an index or rank out of range.
            ScoreError: the model has no class scores.
        """
        return self._meaning.of(targets)

    def _reading(self) -> DetectorFacts:
        """Return how a detector's numbers are read."""
        program = self._runner.program(self.methods, f"{WEIGHTED}{DETECTIONS}", kernels=True)
        assert program.plan.detector is not None
        return program.plan.detector

    def scores(
        self,
        image: ImageLike,
        preprocess: Preprocess | None = None,
        *,
        inputs: Mapping[str, OtherInput] | None = None,
    ) -> NDArray[Any]:
        """Return all class scores of an image, ``[C]``, before Softmax or Sigmoid.

        Args:
            image: as :meth:`explain` takes it.
            preprocess: how it is prepared, in place of the explainer's own way.
            inputs: the model's other inputs.

        Raises:
            OnnxcamError: as :meth:`explain`.
        """
        self._meaning.check_classes()
        others = self.others.check(inputs)
        tensor, item = self._inputs.prepare(image, preprocess or self.preprocess)
        feeds = feeds_of(self.plan, tensor, others, [item.scale])
        program = self._runner.program([])
        with size_told(self.plan.image, self.path, preprocess or self.preprocess):
            found = program.run(feeds, [program.plan.scores])
        return np.asarray(found[program.plan.scores][0])

    def similar_to(
        self, reference: ImageLike, *, inputs: Mapping[str, OtherInput] | None = None
    ) -> Similarity:
        """Return the target of a model of embeddings: its cosine similarity with another image.

        Args:
            reference: the other image, prepared as those that are explained.
            inputs: the model's other inputs, for the reference.

        Raises:
            OnnxcamError: as :meth:`explain`; there is no embedding.
        """
        name = str(reference) if isinstance(reference, (str, Path)) else "an image"
        others = self.others.check(inputs)
        job = Job(self._setup, f"{WEIGHTED}{EMBEDDING}", others)
        with size_told(self.plan.image, self.path, self.preprocess):
            return Similarity(job.read(reference), f"similarity to {name}")

    def _setup_of(self, kind: str | None) -> Setup:
        """Return the setup for a kind of target: without a choice, layer-cam is for boxes alone."""
        boxes = kind == f"{WEIGHTED}{DETECTIONS}"
        if self._chosen or boxes or self.plan.detector is None:
            return self._setup
        return replace(self._setup, methods=[find_method(_USUAL)])

    @property
    def _setup(self) -> Setup:
        shared = (self._inputs, self.preprocess, self.labels)
        return Setup(self._runner, self.methods, *shared, self._layers)

    def _explained(
        self,
        images: Sequence[ImageLike] | NDArray[Any],
        targets: Sequence[Sequence[Wanted]],
        inputs: Mapping[str, OtherInput] | None,
    ) -> list[Explanations[Explanation]]:
        """Explain every kind of target in runs of its own, and put them in order again."""
        others = self.others.check(inputs)
        ready = isinstance(images, np.ndarray)
        kinds = dict.fromkeys(kind_of(t) for wanted in targets for t in wanted)
        found: list[dict[tuple[int, int], Explanation]] = [{} for _ in targets]
        for kind in kinds:
            places = [[i for i, t in enumerate(w) if kind_of(t) == kind] for w in targets]
            chosen = [[w[i] for i in mine] for w, mine in zip(targets, places, strict=True)]
            job = Job(self._setup_of(kind), kind, others)
            with size_told(self.plan.image, self.path, None if ready else self.preprocess):
                explained = list(job.explain(images, chosen))
            for n, explanations in enumerate(explained):
                for row in range(len(explanations) // max(1, len(places[n]))):  # layer, method
                    part = explanations[row * len(places[n]) : (row + 1) * len(places[n])]
                    found[n] |= {(row, i): e for i, e in zip(places[n], part, strict=True)}
        listed = [[mine[key] for key in sorted(mine)] for mine in found]
        return [
            Explanations(e for e in mine if e.detected is None or e.detected.one) for mine in listed
        ]


def _patches(grid: Sequence[int] | None) -> tuple[int, int] | None:
    if grid is None:
        return None
    if len(grid) != 2 or min(grid) < 1:
        raise LayerError(f"grid {grid}: it is rows and columns of patches, (14, 14) for one.")
    return int(grid[0]), int(grid[1])
