"""Many runs on variants of one image, for the methods that drive them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from onnxcam.batch import rows_of
from onnxcam.errors import MethodError
from onnxcam.feeds import filled
from onnxcam.methods.base import Method
from onnxcam.runner import BATCH, Array, Program, Runner
from onnxcam.surgeon.plan import WEIGHTS
from onnxcam.surgeon.request import Cut

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
        self._several = rows_of(targets) > 1
        whole = runner.program([_VALUE], element)
        self._facts, self._tensor = whole.plan.image, tensor
        self._batch_size = self._facts.batch or BATCH
        self._cut: Cut = "input" if np.issubdtype(np.dtype(self._facts.dtype), np.integer) else ""
        self._program = runner.program([_VALUE], element, self._cut) if self._cut else whole
        if self._cut:
            [tensor] = self._clean(tuple(self._program.plan.feeds)[:1])
        self._kind = tensor.dtype
        self.image = np.asarray(self._facts.channels_first(tensor)[0])

    @cached_property
    def value(self) -> NDArray[np.float64]:
        """The explained numbers of the clean image, ``[T]``."""
        return np.asarray(self.forward(self.image[None])[0])

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
        several = self._several
        program = self._runner.program([method], self._element, self._cut, several=several)
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
