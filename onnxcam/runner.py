"""Batches -> runs -> maps, for methods of one run and of many.

A *program* is an instrumented model and its session, made when it is first needed: one for the
methods' formulas, and for those that drive many runs one that gives the explained numbers alone,
their gradient at the input, or the numbers from the layer on.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxcam.cache import forget, instrumented
from onnxcam.errors import InferenceError, LayerError
from onnxcam.gradient.interface import Engine
from onnxcam.methods.base import Method
from onnxcam.runtime.gpu import CUDA
from onnxcam.runtime.session import Providers, Session, first_provider, keeps_blocks
from onnxcam.surgeon.lengths import Grid
from onnxcam.surgeon.plan import Plan
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


def kernels_on_device(provider: str) -> bool:
    """Whether maps are finished by the CUDA kernels: the provider is CUDA, and Numba is there."""
    return provider == CUDA and importlib.util.find_spec("numba_cuda") is not None


class Runner:
    """Makes programs of one model; several threads may ask.

    Attributes:
        blocks: whether gradients at the image are written for the CPU's blocked layout.

    ``by_turns`` says that programs are run in turn, as methods of many runs do.
    """

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
        by_turns: bool = False,
    ) -> None:
        self.path, self.engine = path, engine
        self._layers, self._score, self._grid = layers, score, grid
        self._providers, self._cached, self._by_turns = providers, cached, by_turns
        provider = first_provider(providers) if engine == "rules" else ""
        self._on_device, self.blocks = kernels_on_device(provider), keeps_blocks(provider)
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
        several: bool = False,
    ) -> Program:
        """Return the program that gives what methods write; made once.

        Args:
            methods: what is written; those that only drive runs write nothing.
            element: the tensor whose elements are explained.
            cut: see :class:`onnxcam.surgeon.request.Request`.
            kernels: whether sums may be left to kernels on a GPU.
            of_boxes: what is written in place of methods where the model is a detector.
            several: whether a run has several targets. On the CPU gradients at the image are
                otherwise written for one, which is less work.
        """
        written = _written(methods)
        for_boxes = None if of_boxes is None else _written(of_boxes)
        on_device = kernels and self._on_device
        at_image = any(m.space == "input" for m in written.values())
        single = self.blocks and at_image and not several
        key = (_parts(written), element, cut, single, on_device)
        with self._lock:
            if key in self._programs:
                return self._programs[key]
            made = self._made(written, element, cut, single, on_device, for_boxes)
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
                    by_turns=self._by_turns,
                )
            return self._single[layer]

    def request(
        self,
        written: Mapping[str, Method],
        element: str | None,
        cut: Cut = "",
        single: bool = False,
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
            single=single,
            on_device=on_device,
        )

    def _made(
        self,
        written: Mapping[str, Method],
        element: str | None,
        cut: Cut,
        single: bool,
        on_device: bool,
        of_boxes: Mapping[str, Method] | None,
    ) -> Program:
        request = self.request(written, element, cut, single, on_device, of_boxes)
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
        session = Session(model, folder, self._providers, name, rests=self._by_turns)
        return Program(session, plan)


def _written(methods: Sequence[Method]) -> dict[str, Method]:
    """Return the methods that write anything, by their labels; others only drive runs."""
    return {m.label: m for m in methods if m.drive is None}


def _parts(written: Mapping[str, Method]) -> tuple[Any, ...]:
    return tuple((m.label, m.write, m.written) for m in written.values())
