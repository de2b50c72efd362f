"""What a method is: a formula in the graph, and perhaps what finishes or drives it on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import MethodError

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site, Weighted

Space = Literal["layer", "input"]
Arrays = Mapping[str, NDArray[Any]]
Parameters = Mapping[str, float]


class Runs(Protocol):
    """Many runs of the network on variants of one image, its targets fixed on the clean one.

    Attributes:
        image: the clean image as the network takes it, ``[C, H, W]``.
        value: the explained numbers on the clean image, ``[T]``.
        activations: the layer's activations on the clean image, ``[K, *S]``.
    """

    image: NDArray[Any]
    value: NDArray[np.float64]
    activations: NDArray[Any]

    def forward(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Return the explained numbers of images ``[B, C, H, W]``, ``[B, T]``."""

    def gradient(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Return their gradients at the images ``[B, C, H, W]``, ``[B, T, C, H, W]``."""

    def tail(self, activations: NDArray[Any]) -> NDArray[np.float64]:
        """Return the explained numbers of activations ``[B, K, *S]``, ``[B, T]``.

        Only what lies after the layer is run; skip connections keep their values.
        """


@dataclass(frozen=True)
class Method:
    """One way to explain.

    Attributes:
        name: what users call it.
        citation: paper and equation.
        formula: what it computes, in a line.
        space: where its maps lie: ``"layer"``, ``[N, T, *S]``, or ``"input"``, ``[N, T, C, H, W]``
            or, without channels, ``[N, T, H, W]``.
        write: writes the map into the graph, or values that ``finish`` makes it of, with axes
            ``[T, N, ...]``, or ``[1, N, ...]`` where it is the same for every target.
        finish: returns the map of these values, images first, and of the parameters.
        drive: returns the map of one image, ``[T, ...]``, of many runs and of the parameters.
        parameters: their names and values; all are numbers.
        needs: what it asks of the model, for the list of methods.
        cost: how many forward passes it takes, for the list of methods.
        builtin: whether it comes with onnxcam; others are not cached.
    """

    name: str
    citation: str
    formula: str = ""
    space: Space = "layer"
    write: Callable[[Site], Term | Weighted | Mapping[str, Term]] | None = None
    finish: Callable[..., NDArray[Any]] | None = None
    drive: Callable[..., NDArray[Any]] | None = None
    parameters: Parameters = field(default_factory=dict)
    needs: str = "a layer of maps"
    cost: str = "1"
    builtin: bool = False

    def graph(self, site: Site) -> Term | Weighted | Mapping[str, Term]:
        """Write what it needs into the graph."""
        return {} if self.write is None else self.write(site)

    def finished(self, arrays: Arrays) -> NDArray[Any]:
        """Return the map, images first, of what the graph gave."""
        return arrays["map"] if self.finish is None else self.finish(arrays, **self.parameters)

    def key(self) -> str | None:
        """Return what tells its graph from another's; ``None``: it is not to be cached."""
        return self.name if self.builtin else None


def positive(method: str, **parameters: float) -> None:
    """Refuse parameters that are not whole numbers from 1 on.

    Raises:
        MethodError: one is not.
    """
    for name, value in parameters.items():
        if value < 1 or value != int(value):
            raise MethodError(f"method '{method}': {name} = {value} must be a whole number from 1.")
