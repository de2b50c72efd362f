"""What an instrumented model is asked for, as plain data; nothing here needs ``onnx``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from onnxcam.gradient.interface import Engine
from onnxcam.surgeon.lengths import Grid

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site, Weighted


Cut = Literal["", "layer", "input"]  # from the start, or the image's first floating tensor


class Part(Protocol):
    """What a method writes into the graph."""

    @property
    def space(self) -> str:
        """Where it ends: ``"layer"`` or ``"input"``."""

    @property
    def joins(self) -> str:
        """How its maps of several layers become one; ``""``: they do not."""

    def graph(self, site: Site) -> Term | Weighted | Mapping[str, Term | Weighted]:
        """Write it; return values with axes ``[T, N, ...]``."""


@dataclass(frozen=True)
class Request:
    """What an instrumented model is to give.

    Attributes:
        parts: what is written, by name.
        layers: see :func:`onnxcam.surgeon.find.layers.find_layers`; every part that ends at a layer
            is written at each; of ``STAGES`` at the first alone, if it does not join several.
        grid: rows and columns of patches in layers of tokens, where the user says them.
        score: see :func:`onnxcam.surgeon.find.score.find_score`.
        element: the tensor whose elements are explained, or after ``WEIGHTED`` of
            :mod:`onnxcam.surgeon.words` the one whose weighted sums are; ``None`` for class scores.
        engine: the gradient engine.
        on_device: whether weighted sums are left to a kernel on the GPU, which is given weights and
            activations; everything is then written with images first.
        cut: at which tensor the graph begins: it is an input, in place of what computes it.
        single: whether a run has one target, and gradients at the image are written for ONNX
            Runtime on CPU, see :mod:`onnxcam.gradient.blocked.layout`.
        of_boxes: what is written in place of parts where the model is a detector.
    """

    parts: Mapping[str, Part] = field(default_factory=dict)
    layers: tuple[str, ...] = ("auto",)
    score: str = "auto"
    grid: Grid | None = None
    element: str | None = None
    engine: Engine = "rules"
    cut: Cut = ""
    single: bool = False
    on_device: bool = False
    of_boxes: Mapping[str, Part] | None = None

    def options(self) -> list[Any]:
        """Return everything but the parts, JSON-ready."""
        return [
            self.layers,
            self.grid,
            self.score,
            self.element,
            self.engine,
            self.cut,
            self.single,
            self.on_device,
        ]
