"""Batches -> runs -> maps, for methods of one run and of many.

A *program* is an instrumented model and its session, made when it is first needed: one for the
methods' formulas, and for those that drive many runs one that gives the explained numbers alone,
their gradient at the input, or the numbers from the layer on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.cache import forget, instrumented
from onnxcam.errors import InferenceError, MethodError
from onnxcam.gradient.interface import Engine
from onnxcam.methods.base import Method
from onnxcam.runtime.session import Providers, Session
from onnxcam.surgeon.plan import Plan
from onnxcam.surgeon.request import Request

Array = NDArray[Any]
BATCH = 8  # images in one run where the model allows it


@dataclass(frozen=True)
class Program:
    """An instrumented model, loaded."""

    session: Session
    plan: Plan

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Array]:
        """Run it; return outputs by name."""
        return self.session.run(feeds, outputs)

    @property
    def inputs(self) -> set[str]:
        """The names of its inputs, but for the image."""
        return set(self.session.inputs) - {self.plan.image.name}

    @property
    def others(self) -> set[str]:
        """The names of the model's own inputs, but for the image."""
        return {t.name for t in self.plan.facts.inputs} - {self.plan.image.name}

    def names(self, part: str) -> list[str]:
        """Return the names of a part's outputs."""
        return list(self.plan.parts[part].outputs.values())

    def part(self, name: str, values: Mapping[str, Array]) -> dict[str, Array]:
        """Return a part's values, images first: ``[N, T, ...]``."""
        facts = self.plan.parts[name]
        return {
            key: values[output]
            if key in facts.images_first or key == "negative"
            else np.swapaxes(values[output], 0, 1)
            for key, output in facts.outputs.items()
        }


class Runner:
    """Makes programs of one model; several threads may ask."""

    def __init__(
        self,
        path: Path,
        *,
        layer: str | int,
        score: str,
        engine: Engine,
        providers: Providers,
        cached: bool,
    ) -> None:
        self.path, self.engine = path, engine
        self._layer, self._score = layer, score
        self._providers, self._cached = providers, cached
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._lock = threading.Lock()

    def program(
        self, methods: Sequence[Method], element: str | None = None, tail: bool = False
    ) -> Program:
        """Return the program that gives what methods write; made once."""
        written = {m.name: m for m in methods if m.drive is None}
        key = (tuple((m.name, m.write) for m in written.values()), element, tail)
        with self._lock:
            if key not in self._programs:
                self._programs[key] = self._made(written, element, tail)
            return self._programs[key]

    def _made(self, written: Mapping[str, Method], element: str | None, tail: bool) -> Program:
        request = Request(written, self._layer, self._score, element, self.engine, tail)
        keys = [m.key() for m in written.values()]
        data, plan = instrumented(self.path, request, keys, cached=self._cached)
        folder, name = self.path.absolute().parent, self.path.name
        try:
            if isinstance(data, Path) and plan.outer:
                # Loaded from a file, older runtimes look for outer weights beside that file only.
                data = data.read_bytes()
            return Program(Session(data, folder, self._providers, name), plan)
        except (InferenceError, OSError):
            if isinstance(data, bytes):
                raise
        # The entry is damaged, or another process made room between the look and the load.
        fresh, _ = instrumented(self.path, request, keys, cached=False)
        session = Session(fresh, folder, self._providers, name)
        forget(data)
        return Program(session, plan)


_VALUE = Method("value", "", write=lambda s: {"value": s.value}, space="layer", builtin=True)
_GRADIENT = Method(
    "input-gradient",
    "",
    space="input",
    write=lambda s: {"gradient": s.gradient(s.input)},
    builtin=True,
)


class ImageRuns:
    """Many runs on variants of one image, see :class:`onnxcam.methods.base.Runs`."""

    def __init__(
        self, runner: Runner, tensor: Array, targets: Mapping[str, Array], element: str | None
    ) -> None:
        """Take an image ``[1, ...]`` as the model takes it, and its targets, which stay fixed.

        ``targets`` are the inputs that say them, of one image; other inputs of the model are
        among them, with a batch axis of 1.
        """
        self._runner, self._targets, self._element = runner, targets, element
        self._program = runner.program([_VALUE], element)
        self._layout = self._program.plan.image.layout
        self.image = self._channels_first(tensor)[0]
        self.value = self.forward(self.image[None])[0]

    @property
    def activations(self) -> Array:
        """The layer's activations on the clean image, ``[K, *S]``."""
        name = next(iter(self._tail.plan.feeds))
        return np.asarray(self._crossing[name][0])

    @property
    def _tail(self) -> Program:
        return self._runner.program([_VALUE], self._element, tail=True)

    @cached_property
    def _crossing(self) -> dict[str, Array]:
        """What the tail is fed on the clean image, by the tensors' names."""
        tensors = tuple(self._tail.plan.feeds)
        method = Method(
            "crossing",
            "",
            write=_reader(tensors),
            builtin=False,
        )
        program = self._runner.program([method], self._element)
        values = self._batch(program, self.image[None], program.names("crossing"))
        outputs = program.plan.parts["crossing"].outputs
        return {tensor: values[outputs[tensor]] for tensor in tensors}

    def forward(self, images: Array) -> NDArray[np.float64]:
        """Return the explained numbers of images ``[B, C, H, W]``, ``[B, T]``."""
        [found] = self._many(self._program, images, self._program.names("value"))
        return found

    def gradient(self, images: Array) -> NDArray[np.float64]:
        """Return their gradients at the images, ``[B, T, C, H, W]``."""
        program = self._runner.program([_GRADIENT], self._element)
        if not np.issubdtype(np.dtype(program.plan.image.dtype), np.floating):
            raise MethodError(
                f"the image input '{program.plan.image.name}' takes {program.plan.image.dtype}, so "
                "steps between images are lost to rounding. Choose a method of one run."
            )
        [found] = self._many(program, images, program.names("input-gradient"))
        return np.moveaxis(found, -1, 2) if self._layout == "NHWC" else found

    def tail(self, activations: Array) -> NDArray[np.float64]:
        """Return the explained numbers of activations ``[B, K, *S]``, ``[B, T]``."""
        program, crossing = self._tail, self._crossing
        first, *others = program.plan.feeds.items()
        found = []
        size = program.plan.image.batch or BATCH
        known = {n for n in self._targets if n in program.inputs}
        for start in range(0, len(activations), size):
            part = _filled(activations[start : start + size], program.plan.image.batch)
            feeds = {n: v for n, v in self._targets.items() if n in known}
            feeds |= {first[1]: part}
            feeds |= {feed: np.repeat(crossing[n], len(part), 0) for n, feed in others}
            [output] = program.names("value")
            values = program.run(feeds, [output])[output]
            found.append(values.T[: len(activations) - start])
        return np.concatenate(found).astype(np.float64)

    def _many(
        self, program: Program, images: Array, outputs: Sequence[str]
    ) -> list[NDArray[np.float64]]:
        size = program.plan.image.batch or BATCH
        parts = [
            self._batch(program, images[start : start + size], outputs)
            for start in range(0, len(images), size)
        ]
        whole = (np.concatenate([np.swapaxes(p[o], 0, 1) for p in parts]) for o in outputs)
        return [np.asarray(values[: len(images)], np.float64) for values in whole]

    def _batch(self, program: Program, images: Array, outputs: Sequence[str]) -> dict[str, Array]:
        facts = program.plan.image
        whole = np.moveaxis(images, 1, -1) if self._layout == "NHWC" else images
        kind = np.dtype(facts.dtype)
        if np.issubdtype(kind, np.integer):
            whole = np.clip(np.rint(whole), np.iinfo(kind).min, np.iinfo(kind).max)
        whole = _filled(whole.astype(kind), facts.batch)
        feeds = {facts.name: whole}
        for name, value in self._targets.items():
            repeated = name in program.others and len(value) == 1
            feeds[name] = np.repeat(value, len(whole), 0) if repeated else value
        return program.run(feeds, outputs)

    def _channels_first(self, images: Array) -> Array:
        return np.moveaxis(images, -1, 1) if self._layout == "NHWC" else images


def _reader(tensors: Sequence[str]) -> Callable[[Any], dict[str, Any]]:
    return lambda s: {name: s.tensor(name) for name in tensors}


def _filled(images: Array, batch: int | None) -> Array:
    """Repeat the last image where the model takes no fewer than ``batch``."""
    missing = (batch or len(images)) - len(images)
    return np.concatenate([images, *[images[-1:]] * missing]) if missing > 0 else images
