"""What a run gave is checked before an explanation is made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import LayerError, MethodError, NotFiniteError, WeightsError
from onnxcam.methods.base import Method
from onnxcam.model.facts import TensorFacts
from onnxcam.surgeon.plan import ImageInput


def check_axes(
    method: Method,
    layer: TensorFacts | None,
    image: ImageInput,
    shape: tuple[int, ...],
    path: Path,
) -> None:
    """Refuse a map whose spatial axes are not the layer's, or do not lie on the input's.

    Raises:
        MethodError, LayerError: so it is.
    """
    if layer is None:
        return
    rank, own = len(layer.shape or ()) - 2, image.axes
    if len(shape) != rank:
        raise MethodError(
            f"{path}: method '{method.name}' gave maps of shape {list(shape)}; a map of the layer "
            f"'{layer.name}' has {rank} spatial axes."
        )
    if rank != len(own) and own != "W":  # of a signal a spectrum may be made
        raise LayerError(
            f"{path}: layer '{layer.name}' has {rank} spatial axes; a heatmap on an image needs "
            "two, one on a volume three. --layer names another."
        )


def check_finite(
    scores: NDArray[Any], maps: Sequence[NDArray[Any]], method: Method, path: Path
) -> None:
    """Refuse scores and maps that hold NaN or infinity.

    Raises:
        WeightsError: the model's own weights do.
        NotFiniteError: they do not, so the input or an overflow is the cause.
    """
    named = f"maps of '{method.name}'"
    for what, array in (("scores", scores), *((named, m) for m in maps)):
        # A finite sum is quickly seen; only where it is not, every value is looked at.
        if not math.isfinite(array.sum()) and not np.isfinite(array).all():
            from onnxcam.model.weights import non_finite_weights

            culprits = non_finite_weights(path)
            if culprits:
                raise WeightsError(
                    f"{path}: the {what} are not finite, so there is nothing to explain. The "
                    f"weights {', '.join(culprits)} hold NaN or infinity."
                )
            raise NotFiniteError(
                f"{path}: the {what} are not finite, so there is nothing to explain. The weights "
                "are finite, so this input or an overflow is the cause; check the preprocessing."
            )


class _Target(Protocol):
    @property
    def linear(self) -> bool: ...


def check_linear(methods: Sequence[Method], targets: Sequence[_Target]) -> None:
    """Refuse methods of many runs for numbers that are no sums: they would follow the sum.

    Raises:
        MethodError: there is such a method and such a number.
    """
    driven = next((m.name for m in methods if m.drive is not None and not m.boxes), None)
    curved = next((t for t in targets if not t.linear), None)
    if driven is not None and curved is not None:
        raise MethodError(
            f"method '{driven}' does not go with the target '{curved}'. Choose one of one run, "
            "grad-cam for one."
        )
