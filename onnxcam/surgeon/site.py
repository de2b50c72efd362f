"""What a method sees of the graph: a layer, the input, and the targets' gradients there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import onnx_ir as ir

from onnxcam.errors import EngineError, LayerError, MethodError, OnnxcamError
from onnxcam.gradient.backward import Backward
from onnxcam.gradient.overrides.base import Override
from onnxcam.gradient.overrides.policies import STANDARD, find_policy
from onnxcam.graph.builder import PREFIX, Builder, shaped
from onnxcam.graph.terms import Term
from onnxcam.graph.values import depends_on, dims, leads_to, names
from onnxcam.surgeon.find.biases import bias_of, channels_of
from onnxcam.surgeon.find.image import first_floating
from onnxcam.surgeon.find.layouts import Layout
from onnxcam.surgeon.reference import beside
from onnxcam.surgeon.second import hessian_product
from onnxcam.surgeon.seeds.built import BuiltSeeds
from onnxcam.surgeon.seeds.classes import ClassSeeds
from onnxcam.surgeon.seeds.compared import ComparedSeeds, ResidualSeeds
from onnxcam.surgeon.seeds.head import Cotangent, score_cotangent
from onnxcam.surgeon.seeds.pooled import averages_space, summed_gradient
from onnxcam.surgeon.tokens import Tokens


class Seeds(Protocol):
    """Where a walk starts; one kind of target a class, see :mod:`onnxcam.surgeon.seeds`."""

    @property
    def b(self) -> Builder:
        """The builder of the graph."""

    @property
    def T(self) -> str | int:  # noqa: N802
        """The number of targets, or the name of that length."""

    @property
    def value(self) -> ir.Value:
        """The explained numbers, ``[T, N]``."""

    def start(self, to: ir.Value, overrides: Sequence[Override] = ()) -> Cotangent:
        """Return the cotangent of the tensor that a walk to ``to`` starts from."""

    def add_outputs(self) -> None:
        """Give the graph what the record of a target needs as outputs."""


@dataclass(frozen=True)
class Weighted:
    """Weights of activations, which are summed in the graph or, on a GPU, by a kernel.

    Attributes:
        weights: ``[T, N, K]``, one a channel, or ``[T, N, K, *S]``, one an element.
        activations: ``[N, K, *S]``.
        pixels: whether the weights are one an element.
        relu: whether only what is positive of the sum is kept.
    """

    weights: Term
    activations: Term
    pixels: bool = False
    relu: bool = False


class Bias(NamedTuple):
    """What a bias contributes to the score.

    Attributes:
        contribution: ``[T, N, ...]``.
        rank: the number of its axes without ``T``.
        axis: which of these is the channels; ``None`` where it differs along others.
    """

    contribution: Term
    rank: int
    axis: int | None


class Site:
    """One layer of a graph, shared by every method of a run.

    What is not asked for is not written; what is asked for twice is written once. Values are
    :class:`~onnxcam.graph.terms.Term`, with which a method writes its formula. ``T`` targets, ``N``
    images, ``K`` channels, ``S`` space; an input has ``C`` channels and space ``[H, W]``.

    Attributes:
        rank: the number of axes in ``S``.
        walks: the walks under overrides that what was asked for rests on.
    """

    def __init__(
        self,
        b: Builder,
        seeds: Seeds,
        layer: ir.Value | None,
        image: ir.Value,
        why: OnnxcamError | None = None,
        layout: Layout | None = None,
        *,
        single: bool = False,
    ) -> None:
        self._layout, self._single = layout, single
        self.b, self.op, self._seeds, self._layer, self._image = b, b.op, seeds, layer, image
        self._why = why or LayerError("the model has no layer of maps.")
        self._known: dict[tuple[Any, ...], ir.Value] = {}
        self._walks: dict[tuple[Any, ...], Backward] = {}
        self._references: dict[float, Callable[[ir.Value], ir.Value]] = {}
        self.walks: list[Backward] = []

    def like(self, number: float) -> ir.Value:
        """Return a scalar constant of the layer's type."""
        return self.b.constant(number, self.kind)

    @property
    def kind(self) -> ir.DataType:
        """The floating-point type of layer and input."""
        value = first_floating(self._image) if self._layer is None else self._layer
        return value.dtype or ir.DataType.FLOAT

    def term(self, value: ir.Value) -> Term:
        """Return a value as part of a formula."""
        return Term(self, value)

    @property
    def layer(self) -> ir.Value:
        """The explained layer's tensor."""
        if self._layer is None:
            raise self._why
        return self._layer

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(dims(self.layer) or []) - 2

    @property
    def activations(self) -> Term:
        """The layer's activations, ``[N, K, *S]``."""
        return self.term(self.layer)

    @property
    def input(self) -> Term:
        """The image tensor, or the first floating tensor that an integer one is converted to."""
        return self.term(first_floating(self._image))

    @property
    def value(self) -> Term:
        """The explained numbers, ``[T, N]``."""
        return self.term(self._once(("value",), lambda: self._seeds.value))

    @property
    def share(self) -> Term:
        """The explained classes' probabilities, ``[T, N]``; of other targets the numbers."""
        seeds = self._seeds
        if not isinstance(seeds, ClassSeeds):
            return self.value
        return self.term(self._once(("share",), lambda: seeds.share))

    def gradient(self, at: Term | None = None, policy: str | Override = STANDARD) -> Term:
        """Return the gradient at the layer, ``[T, N, K, *S]``, or at another tensor.

        The policy says how the walk differs from the derivative, by its name or as an override
        (:mod:`onnxcam.gradient.overrides`).
        """
        overrides = find_policy(policy)
        to = self.layer if at is None else at.value
        key = ("gradient", to, *overrides)
        value = self._once(key, lambda: self._walk(key, to, overrides))
        if overrides:
            self.walks.append(self._walks[key])
        return self.term(value)

    def pooled(self) -> Term:
        """Return the gradient averaged over space, ``[T, N, K]``, in a cheap form.

        The sum passes through pooling and the weights of dense layers.
        """

        def make() -> ir.Value:
            summed = summed_gradient(self.b, self._seeds.start(self.layer), self.layer)
            return self.b.op("Div", summed, self.b.positions(self.layer))

        return self.term(self._once(("pooled",), make))

    def compared(self, alpha: float, count: int) -> Site:
        """Return the site of the targets' classes compared with those of the nearest scores.

        See :class:`onnxcam.surgeon.seeds.compared.ComparedSeeds`.

        Raises:
            MethodError: the targets are no classes, or there is one only.
        """
        return self._of(ComparedSeeds(self._classes(), alpha, count))

    def residual(self) -> Site:
        """Return the site of the targets' classes with their log-probabilities added.

        See :class:`onnxcam.surgeon.seeds.compared.ResidualSeeds`.

        Raises:
            MethodError: the targets are no classes, or there is one only.
        """
        return self._of(ResidualSeeds(self._classes()))

    def _classes(self) -> ClassSeeds:
        if not isinstance(self._seeds, ClassSeeds):
            raise MethodError(
                "it compares classes, so its target is a class, as -t 281. grad-cam takes any."
            )
        if isinstance(self._seeds, BuiltSeeds):
            raise EngineError("engine 'ort' compares no classes; engine 'rules' does.")
        return self._seeds

    def _of(self, seeds: Seeds) -> Site:
        return Site(self.b, seeds, self._layer, self._image, self._why, single=self._single)

    def bent(self, along: Term) -> Term | None:
        """Return the targets' Hessian at the layer times a vector ``[N, K, *S]``.

        Returns:
            ``[T, N, K, *S]``; ``None`` where the gradient depends on the layer in steps only.

        Raises:
            MethodError: second derivatives are not to be had.
        """
        if isinstance(self._seeds, BuiltSeeds):
            raise EngineError("engine 'ort' has no second derivatives; engine 'rules' has.")
        unclipped = self._seeds.start(self.layer).unclipped
        gradient = self.gradient().value
        found = hessian_product(self.b, gradient, self.layer, along.value, unclipped)
        return None if found is None else self.term(found)

    def head(self) -> Term:
        """Return the weights of the last linear layer for each target, ``[T, N, K]``.

        Raises:
            MethodError: the layer's maps are not averaged and then given to a linear layer.
        """
        start = self._seeds.start(self.layer)
        between = depends_on(self.b.graph, {self.layer}) & leads_to(start.value)
        nodes = [n for n in self.b.graph if n.outputs and n.outputs[0] in between - {self.layer}]
        pooled = bool(nodes) and all(averages_space(n) for n in nodes)
        if not (start.linear and pooled and (dims(start.value) or [])[1:2] == self._channels()):
            raise MethodError(
                "it needs maps that are averaged over space and given to one linear layer, and "
                f"between '{self.layer.name}' and the score lies something else. grad-cam is its "
                "generalization."
            )
        return self.term(start.summed())

    def _channels(self) -> list[int | str | None]:
        return (dims(self.layer) or [])[1:2]

    def weighted(self, weights: Term, relu: bool = False) -> Weighted:
        """Return ``sum_k weights_k A_k``, of weights ``[T, N, K]``: a class activation map."""
        return Weighted(weights, self.activations, relu=relu)

    def weighted_pixels(self, weights: Term) -> Weighted:
        """Return ``sum_k weights_k A_k``, of weights ``[T, N, K, *S]``."""
        return Weighted(weights, self.activations, pixels=True)

    def tensor(self, name: str) -> Term:
        """Return a tensor of the model by its name."""
        value = names(self.b.graph)[name]
        if name.startswith(PREFIX):  # what becomes an output is renamed
            value = shaped(self.op("Identity", value), value)
        return self.term(value)

    @staticmethod
    def relu(value: Term) -> Term:
        """Return what is positive, and 0 elsewhere.

        Raises:
            MethodError: it is a weighted sum, which is finished.
        """
        if isinstance(value, Weighted):
            raise MethodError("a weighted sum is rectified by s.weighted(w, relu=True).")
        return value.op("Relu")

    def mean_space(self, value: Term, keepdims: bool = False) -> Term:
        """Average over space."""
        return self.sum_space(value, keepdims) / self.term(self.b.positions(self.layer))

    def sum_space(self, value: Term, keepdims: bool = False) -> Term:
        """Sum over space."""
        axes = list(range(-self.rank, 0))
        return self.term(self.b.sum(value.value, axes, keepdims=keepdims))

    def max_space(self, value: Term) -> Term:
        """Return the largest value over space."""
        return self.term(self.b.reduced("ReduceMax", value.value, list(range(-self.rank, 0))))

    def min_space(self, value: Term) -> Term:
        """Return the least value over space, whose axes are kept."""
        axes = list(range(-self.rank, 0))
        return self.term(self.b.reduced("ReduceMin", value.value, axes, keepdims=True))

    def over_space(self, value: Term) -> Term:
        """Return ``[T, N, K]`` as ``[T, N, K, 1, ...]``, to be multiplied with activations."""
        axes = self.b.ints(*range(3, 3 + self.rank))
        return self.term(self.b.op("Unsqueeze", value.value, axes))

    def sum_channels(self, value: Term) -> Term:
        """Sum ``[T, N, K, *S]`` over channels."""
        return self.term(self.b.sum(value.value, [-self.rank - 1]))

    def per_target(self, value: Term) -> Term:
        """Return a value without targets as ``[1, N, ...]``."""
        return self.term(self.b.op("Unsqueeze", value.value, self.b.ints(0)))

    def tokens(self) -> Tokens:
        """Return the tokens of a transformer, and how they attend to each other.

        Raises:
            MethodError: there is no such attention.
        """
        image = first_floating(self._image)
        start = self._seeds.start(self.layer)
        if isinstance(self._seeds, ClassSeeds) and not start.linear:
            start = score_cotangent(self.b, self._seeds.score.value, self._seeds.classes)
        return Tokens(self.b, image, start, self._layout, self.term)

    def reference(self, baseline: float) -> Callable[[ir.Value], ir.Value]:
        """Return what finds a tensor's value for an image of ``baseline`` alone.

        The network between input and score is written a second time, for that image.

        Raises:
            MethodError: it holds operators with graphs of their own.
        """
        if baseline not in self._references:
            image = first_floating(self._image)
            # Walks under overrides start later than the derivative's; any override will do.
            path = leads_to(self._seeds.start(image, find_policy("guided")).value) | {image}
            self._references[baseline] = beside(self.b, image, path, baseline).__getitem__
        return self._references[baseline]

    def biases(self) -> list[Bias]:
        """Return what each bias contributes to the score, of one walk for all.

        Biases are those of linear operators, what batch normalizations shift by, and constants
        that are added.
        """
        image = first_floating(self._image)
        start = self._seeds.start(image)
        between = depends_on(self.b.graph, {image}) & leads_to(start.value)
        nodes = [n for n in self.b.graph if n.outputs and n.outputs[0] in between]
        found = {n.outputs[0]: bias for n in nodes if (bias := bias_of(n)) is not None}
        walked = start.gradients(self.b, [image, *found])
        self._once(("gradient", image), lambda: walked[0])
        return [
            Bias(
                self.term(g) * self.term(self.b.constant(bias, self.kind)),
                len(dims(value) or []),
                channels_of(bias, value),
            )
            for (value, bias), g in zip(found.items(), walked[1:], strict=True)
        ]

    def _walk(
        self, key: tuple[Any, ...], to: ir.Value, overrides: tuple[Override, ...]
    ) -> ir.Value:
        start = self._seeds.start(to, overrides)
        g, self._walks[key] = start.walk(self.b, to, overrides, single=self._single)
        return g

    def _once(self, key: tuple[Any, ...], make: Callable[[], ir.Value]) -> ir.Value:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


def combined(b: Builder, made: Weighted) -> tuple[ir.Value, bool]:
    """Return the sum, and whether it is ``[N, T, *S]`` rather than ``[T, N, *S]``."""
    sums, images_first = _sums(b, made)
    return (b.op("Relu", sums) if made.relu else sums), images_first


def _sums(b: Builder, made: Weighted) -> tuple[ir.Value, bool]:
    weights, layer = made.weights, made.activations.value
    space = (dims(layer) or [])[2:]
    if made.pixels:
        return b.sum((weights * made.activations).value, [-len(space) - 1]), False
    known = [d for d in space if isinstance(d, int)]
    by_image = images_first(b, weights.value, 3)  # [N, T, K]
    sums = b.op("MatMul", by_image, b.op("Reshape", layer, b.ints(0, 0, -1)))
    if len(known) == len(space):
        return b.op("Reshape", sums, b.ints(0, 0, *known)), True
    return b.op("Reshape", sums, b.op("Concat", b.ints(0, 0), b.space(layer), axis=0)), True


def images_first(b: Builder, value: ir.Value, rank: int) -> ir.Value:
    """Return ``[T, N, ...]`` as ``[N, T, ...]``."""
    return b.op("Transpose", value, perm=[1, 0, *range(2, rank)])
