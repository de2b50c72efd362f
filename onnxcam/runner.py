"""Batches -> runs -> maps, for methods of one run and of many.

A *program* is an instrumented model and its session, made when it is first needed: one for the
methods' formulas, and for those that drive many runs one that gives the explained numbers alone,
their gradient at the input, or the numbers from the layer on.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.cache import forget, instrumented
from onnxcam.errors import InferenceError, LayerError, MethodError
from onnxcam.feeds import filled
from onnxcam.gradient.interface import Engine
from onnxcam.methods.base import Method
from onnxcam.runtime.gpu import CUDA
from onnxcam.runtime.session import Providers, Session, choose_providers
from onnxcam.surgeon.lengths import Grid
from onnxcam.surgeon.plan import WEIGHTS, Plan
from onnxcam.surgeon.request import Cut, Request
from onnxcam.surgeon.words import DETECTIONS, STAGES, SWEEP, WEIGHTED

Array = NDArray[Any]
BATCH = 8  # images in one run where the model allows it


@dataclass(frozen=True)
class Program:
    """An instrumented model, loaded."""

    session: Session
    plan: Plan

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Array]:
        """Run it; return outputs by name, all on the host."""
        return self.session.run(feeds, outputs)

    def run_there(
        self, feeds: Mapping[str, Any], outputs: Sequence[str], wanted_here: Sequence[str]
    ) -> dict[str, Any]:
        """Run it; return outputs by name, of which only those wanted here leave a GPU."""
        try:
            if self.session.device is None or not any(p.weighted for p in self.plan.parts.values()):
                return dict(self.session.run(feeds, outputs))
            found = self.session.run_on_device(feeds, outputs)
        except InferenceError as error:
            for check in self.plan.checks:
                if check.grid is not None:
                    raise LayerError(
                        f"{self.plan.facts.file}: the run failed. Are there as many tokens in the "
                        f"layer '{check.layer}' as a grid of {check.grid[0]}x{check.grid[1]} has "
                        f"patches? ({error})"
                    ) from error
            raise
        return {n: v.numpy() if n in wanted_here else v for n, v in found.items()}

    def verify(self, values: Mapping[str, Any], size: tuple[int, ...]) -> None:
        """Refuse layers whose lengths in this run do not go with how they are read."""
        for check in self.plan.checks:
            check.verify([int(length) for length in values[check.output]], size)

    @property
    def inputs(self) -> set[str]:
        """The names of its inputs, but for the image."""
        return set(self.session.inputs) - {self.plan.image.name}

    @property
    def others(self) -> set[str]:
        """The names of the model's own inputs, but for the image."""
        return set(self.plan.others)

    def names(self, part: str, place: int = 0) -> list[str]:
        """Return the names of a part's outputs at one of the layers."""
        return list(self.plan.part(part, place).outputs.values())


def kernels_on_device(providers: Providers) -> bool:
    """Whether maps are finished by the CUDA kernels: the provider is CUDA, and Numba is there."""
    first = choose_providers(providers)[0]
    name = first if isinstance(first, str) else first[0]
    return name == CUDA and importlib.util.find_spec("numba_cuda") is not None


class Runner:
    """Makes programs of one model; several threads may ask."""

    def __init__(
        self,
        path: Path,
        *,
        layers: tuple[str, ...],
        score: str,
        grid: Grid | None = None,
        engine: Engine,
        providers: Providers,
        cached: bool,
    ) -> None:
        self.path, self.engine = path, engine
        self._layers, self._score, self._grid = layers, score, grid
        self._providers, self._cached = providers, cached
        self._on_device = engine == "rules" and kernels_on_device(providers)
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._single: dict[str, Runner] = {}
        self._lock = threading.Lock()

    def program(
        self,
        methods: Sequence[Method],
        element: str | None = None,
        cut: Cut = "",
        *,
        kernels: bool = False,
        of_boxes: Sequence[Method] | None = None,
    ) -> Program:
        """Return the program that gives what methods write; made once.

        Args:
            methods: what is written; those that only drive runs write nothing.
            element: the tensor whose elements are explained.
            cut: see :class:`onnxcam.surgeon.request.Request`.
            kernels: whether sums may be left to kernels on a GPU.
            of_boxes: what is written in place of methods where the model is a detector.
        """
        written = _written(methods)
        for_boxes = None if of_boxes is None else _written(of_boxes)
        on_device = kernels and self._on_device
        key = (_parts(written), element, cut, on_device)
        with self._lock:
            if key in self._programs:
                return self._programs[key]
            made = self._made(written, element, cut, on_device, for_boxes)
            plan = made.plan
            if plan.detector is not None and for_boxes is not None:
                key = (_parts(for_boxes), *key[1:])
            self._programs[key] = made
            if plan.refusal and plan.element is not None:
                stands = f"{WEIGHTED}{DETECTIONS}" if plan.detector else ""
                self._programs[(key[0], stands or plan.element.name, *key[2:])] = made
            return made

    def at(self, place: int, name: str) -> Runner:
        """Return a runner of one of several layers, for many runs from there; made once.

        Args:
            place: which of the layers.
            name: its name in the plan; of layers that were found nothing else is known.
        """
        layer = name if self._layers[0] in (SWEEP, STAGES) else self._layers[place]
        if self._layers == (layer,):
            return self
        with self._lock:
            if layer not in self._single:
                self._single[layer] = Runner(
                    self.path,
                    layers=(layer,),
                    score=self._score,
                    grid=self._grid,
                    engine=self.engine,
                    providers=self._providers,
                    cached=self._cached,
                )
            return self._single[layer]

    def request(
        self,
        written: Mapping[str, Method],
        element: str | None,
        cut: Cut = "",
        on_device: bool = False,
        of_boxes: Mapping[str, Method] | None = None,
    ) -> Request:
        """Return what an instrumented model of methods by name is asked for."""
        return Request(
            written,
            of_boxes=of_boxes,
            layers=self._layers,
            score=self._score,
            grid=self._grid,
            element=element,
            engine=self.engine,
            cut=cut,
            on_device=on_device,
        )

    def _made(
        self,
        written: Mapping[str, Method],
        element: str | None,
        cut: Cut,
        on_device: bool,
        of_boxes: Mapping[str, Method] | None,
    ) -> Program:
        request = self.request(written, element, cut, on_device, of_boxes)
        keys = [m.key() for part in (written, of_boxes or {}) for m in part.values()]
        data, plan = instrumented(self.path, request, keys, cached=self._cached)
        try:
            return self.load(data, plan)
        except (InferenceError, OSError):
            if isinstance(data, bytes):
                raise
        # The entry is damaged, or another process made room between the look and the load.
        fresh, _ = instrumented(self.path, request, keys, cached=False)
        forget(data)
        return self.load(fresh, plan)

    def load(self, model: bytes | Path, plan: Plan) -> Program:
        """Load an instrumented model, or the file that holds one."""
        if isinstance(model, Path) and plan.outer:
            model = model.read_bytes()  # older runtimes look for outer weights beside a file only
        folder, name = self.path.absolute().parent, self.path.name
        return Program(Session(model, folder, self._providers, name), plan)


def _written(methods: Sequence[Method]) -> dict[str, Method]:
    """Return the methods that write anything, by their labels; others only drive runs."""
    return {m.label: m for m in methods if m.drive is None}


def _parts(written: Mapping[str, Method]) -> tuple[Any, ...]:
    return tuple((m.label, m.write, m.written) for m in written.values())


_VALUE = Method("value", "", write=lambda s: {"value": s.value}, space="layer", builtin=True)
_GRADIENT = Method(
    "input-gradient",
    "",
    space="input",
    write=lambda s: {"gradient": s.gradient(s.input)},
    builtin=True,
)


class ImageRuns:
    """Many runs on variants of one image, see :class:`onnxcam.methods.base.Runs`.

    Where the model takes integers, its first floating tensor is varied in their place.
    """

    def __init__(
        self,
        runner: Runner,
        tensor: Array,
        targets: Mapping[str, Array],
        element: str | None,
        likeness: Callable[[Array], Callable[[Array], Array]] | None = None,
    ) -> None:
        """Take an image ``[1, ...]`` as the model takes it, and its targets, which stay fixed.

        ``targets`` are the inputs that say them, of one image; other inputs of the model are
        among them, with a batch axis of 1. ``likeness`` is given a detector's numbers on the clean
        image and returns what compares others with them, where boxes are explained.
        """
        self._likeness = likeness
        self._like: Callable[[Array], Array] | None = None
        self._runner, self._targets, self._element = runner, targets, element
        whole = runner.program([_VALUE], element)
        self._facts, self._tensor = whole.plan.image, tensor
        self._batch_size = self._facts.batch or BATCH
        self._cut: Cut = "input" if np.issubdtype(np.dtype(self._facts.dtype), np.integer) else ""
        self._program = runner.program([_VALUE], element, self._cut) if self._cut else whole
        if self._cut:
            [tensor] = self._clean(tuple(self._program.plan.feeds)[:1])
        self._kind = tensor.dtype
        self.image = np.asarray(self._facts.channels_first(tensor)[0])
        self.value = self.forward(self.image[None])[0]

    @property
    def batch(self) -> int:
        """How many images one run takes."""
        return self._batch_size

    @cached_property
    def activations(self) -> Array:
        """The layer's activations on the clean image, ``[K, *S]``."""
        layers = self._program.plan.layers
        name = layers[0].name if layers else next(iter(self._tail.plan.feeds))
        return np.asarray(self._clean((name,))[0][0])

    @property
    def _tail(self) -> Program:
        return self._runner.program([_VALUE], self._element, "layer")

    @cached_property
    def _crossing(self) -> list[Array]:
        """What the tail is fed on the clean image, in the order of its feeds."""
        return self._clean(tuple(self._tail.plan.feeds))

    def _clean(self, tensors: tuple[str, ...]) -> list[Array]:
        """Return tensors of the model on the clean image, with a batch axis of 1."""
        method = reading(*tensors)
        program = self._runner.program([method], self._element)
        outputs = program.plan.parts[method.label].outputs
        feeds = self._feeds(program, {self._facts.name: filled(self._tensor, self._facts.batch)})
        values = program.run(feeds, list(outputs.values()))
        return [np.asarray(values[outputs[tensor]])[:1] for tensor in tensors]

    def forward(self, images: Array) -> NDArray[np.float64]:
        """Return the explained numbers of images ``[B, C, H, W]``, ``[B, T]``."""
        return self._many(self._program, images, "value")["value"].astype(np.float64)

    def gradient(self, images: Array) -> NDArray[np.float64]:
        """Return their gradients at the images, ``[B, T, C, H, W]``."""
        found = self.given(_GRADIENT, images)["gradient"].astype(np.float64)
        return np.asarray(self._facts.channels_first(found, 2))

    def given(self, method: Method, images: Array) -> dict[str, Array]:
        """Return what a method of one run writes, of images ``[B, C, H, W]``, images first."""
        program = self._runner.program([method], self._element, self._cut)
        return self._many(program, images, method.label)

    def like_boxes(self, images: Array) -> NDArray[np.float64]:
        """Return how like each explained box the best one of images is, ``[B, T]``.

        Raises:
            MethodError: no boxes are explained.
        """
        if self._likeness is None or self._program.plan.single:
            raise MethodError(
                "d-rise explains boxes, of a detector that takes several images. "
                "layer-cam takes any target."
            )
        if self._like is None:
            self._like = self._likeness(self._numbers(self.image[None])[0])
        return np.stack([self._like(one) for one in self._numbers(images)])

    def _numbers(self, images: Array) -> Array:
        """Return a detector's numbers ``[B, A, 4 + S]`` of images."""
        assert self._program.plan.element is not None
        method = _numbers_of(self._program.plan.element.name)
        return self.given(method, images)["numbers"][:, 0]

    def tail(self, activations: Array) -> NDArray[np.float64]:
        """Return the explained numbers of activations ``[B, K, *S]``, ``[B, T]``."""
        layer, *others = self._tail.plan.feeds.values()
        fixed = dict(zip(others, self._crossing[1:], strict=True))
        found = self._run_parts(self._tail, layer, activations, fixed, "value")
        return found["value"].astype(np.float64)

    def _many(self, program: Program, images: Array, part: str) -> dict[str, Array]:
        whole = self._facts.as_taken(images)
        fed = next(iter(program.plan.feeds.values())) if self._cut else self._facts.name
        return self._run_parts(program, fed, whole.astype(self._kind), {}, part)

    def _run_parts(
        self, program: Program, fed: str, whole: Array, fixed: Mapping[str, Array], part: str
    ) -> dict[str, Array]:
        """Return a part's values, images first, of many variants of one input."""
        facts = program.plan.parts[part]
        outputs = {key: name for key, name in facts.outputs.items() if key != "negative"}
        found: dict[str, list[Array]] = {key: [] for key in outputs}
        for start in range(0, len(whole), self._batch_size):
            variants = whole[start : start + self._batch_size]
            full = filled(variants, self._facts.batch)
            feeds = self._feeds(program, {fed: full, **fixed})
            values = program.run(feeds, list(outputs.values()))
            for key, output in outputs.items():
                value = values[output]
                value = value if key in facts.images_first else np.swapaxes(value, 0, 1)
                found[key].append(value[: len(variants)])
        return {key: np.concatenate(parts) for key, parts in found.items()}

    def _feeds(self, program: Program, varied: Mapping[str, Array]) -> dict[str, Array]:
        """Add what stays fixed, repeated as often as there are variants."""
        count = max(map(len, varied.values()))
        fixed = {n: v for n, v in self._targets.items() if n in program.inputs}
        if WEIGHTS in fixed:  # some rules need one for each image
            fixed[WEIGHTS] = np.repeat(fixed[WEIGHTS], count, 1)
        repeated = {*program.others, *program.plan.feeds.values()}
        return {
            n: np.repeat(v, count, 0) if n in repeated and len(v) == 1 else v
            for n, v in {**fixed, **varied}.items()
        }


@cache
def reading(*tensors: str) -> Method:
    """Return a method that gives tensors of the model as they are; the same one each time."""
    name = f"reading {','.join(tensors)}"  # tells its graph from others in the cache
    return Method(name, "", write=lambda s: {t: s.tensor(t) for t in tensors}, builtin=True)


@cache
def _numbers_of(tensor: str) -> Method:
    """Return a method that gives a tensor of the model, ``[1, N, ...]``."""
    return Method(
        f"numbers of {tensor}",
        "",
        write=lambda s: {"numbers": s.per_target(s.tensor(tensor))},
        builtin=True,
    )
