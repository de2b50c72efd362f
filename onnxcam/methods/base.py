"""What a method is: a formula in the graph, and perhaps what finishes or drives it on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import MethodError

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site, Weighted

    Written = Term | Weighted | Mapping[str, Term | Weighted]

Space = Literal["layer", "input"]
Arrays = Mapping[str, NDArray[Any]]
Parameters = Mapping[str, float]


class Runs(Protocol):
    """Many runs of the network on variants of one image, its targets fixed on the clean one."""

    @property
    def image(self) -> NDArray[Any]:
        """The clean image as the network takes it, but with channels first: ``[C, *S]``."""

    @property
    def value(self) -> NDArray[np.float64]:
        """The explained numbers on the clean image, ``[T]``."""

    @property
    def activations(self) -> NDArray[Any]:
        """The layer's activations on the clean image, ``[K, *S]``."""

    @property
    def batch(self) -> int:
        """How many images one run takes; more than that in one call are run one after another."""

    def forward(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Return the explained numbers of images ``[B, C, *S]``, ``[B, T]``."""

    def gradient(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Return their gradients at the images ``[B, C, *S]``, ``[B, T, C, *S]``."""

    def given(self, method: Method, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return what a method of one run writes, of images ``[B, C, *S]``, ``[B, T, ...]``."""

    def like_boxes(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Return how like each explained box the best one of images ``[B, C, *S]`` is, ``[B, T]``.

        Raises:
            MethodError: no boxes are explained.
        """

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
        space: where its maps lie: ``"layer"``, ``[N, T, *S]``, or ``"input"``, ``[N, T, C, *S]``
            or, without channels, ``[N, T, *S]``.
        write: writes the map into the graph, or values that ``finish`` makes it of, with axes
            ``[T, N, ...]``, or ``[1, N, ...]`` where it is the same for every target.
        finish: returns the map of these values, images first, and of the parameters.
        drive: returns the map of one image, ``[T, ...]``, of many runs and of the parameters.
        parameters: of ``write``, ``finish`` and ``drive``, by name; all are numbers.
        defaults: what ``parameters`` are where the user does not say; by default the same.
        needs: what it asks of the model, for the list of methods.
        cost: how many forward passes it takes, for the list of methods.
        on_device: whether ``finish`` takes arrays on the GPU as well.
        proportional: whether its maps are proportional to the score or its gradient.
        builtin: whether it comes with onnxcam; others are not cached.
        boxes: whether it drives runs for a detector's boxes, and for nothing else.
        joins: how its maps of several layers become one, as ``"product"``; ``""``: they do not.
    """

    name: str
    citation: str
    formula: str = ""
    space: Space = "layer"
    write: Callable[..., Written] | None = None
    finish: Callable[..., NDArray[Any]] | None = None
    drive: Callable[..., NDArray[Any]] | None = None
    parameters: Parameters = field(default_factory=dict)
    defaults: Parameters | None = None
    needs: str = "a layer of maps"
    cost: str = "1"
    on_device: bool = False
    proportional: bool = False
    builtin: bool = False
    boxes: bool = False
    joins: str = ""

    @property
    def label(self) -> str:
        """The name, with the parameters that are not the usual ones: ``occlusion:size=24``."""
        usual = self.parameters if self.defaults is None else self.defaults
        other = [f"{k}={v:g}" for k, v in self.parameters.items() if usual.get(k) != v]
        return f"{self.name}:{','.join(other)}" if other else self.name

    def graph(self, site: Site) -> Written:
        """Write what it needs into the graph."""
        return {} if self.write is None else self.write(site, **dict(self.written))

    def finished(self, arrays: Arrays) -> NDArray[Any]:
        """Return the map, images first, of what the graph gave.

        Raises:
            MethodError: no array comes of it.
        """
        if self.finish is not None:
            found = self.finish(arrays, **self._of(self.finish))
        elif "map" in arrays:
            found = arrays["map"]
        else:
            raise MethodError(
                f"method '{self.name}' gives {', '.join(arrays)}; without 'finish' it must give "
                "its map, alone or as 'map'."
            )
        if not hasattr(found, "shape"):
            raise MethodError(
                f"method '{self.name}': 'finish' returned {type(found).__name__}, not an array."
            )
        return found

    def driven(self, runs: Runs) -> NDArray[Any]:
        """Return the map of one image, ``[T, ...]``, of many runs."""
        assert self.drive is not None
        return np.asarray(self.drive(runs, **self._of(self.drive)))

    @property
    def written(self) -> tuple[tuple[str, float], ...]:
        """The parameters that change what is written into the graph."""
        return () if self.write is None else tuple(self._of(self.write).items())

    def key(self) -> str | None:
        """Return what tells its graph from another's; ``None``: it is not to be cached."""
        return f"{self.label} {self.written}" if self.builtin else None

    def _of(self, function: Callable[..., Any]) -> dict[str, float]:
        """Return the parameters that a function takes."""
        takes = signature(function).parameters
        return {name: value for name, value in self.parameters.items() if name in takes}


def positive(method: str, **parameters: float) -> None:
    """Refuse parameters that are not whole numbers from 1 on.

    Raises:
        MethodError: one is not.
    """
    for name, value in parameters.items():
        if value < 1 or value != int(value):
            raise MethodError(f"method '{method}': {name} = {value} must be a whole number from 1.")


def chunks(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where runs of at most ``size`` begin and end, until there were ``count``."""
    for start in range(0, count, size):
        yield start, min(start + size, count)
