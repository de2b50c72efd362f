"""What a run gave becomes a method's maps, on the host or on the GPU, wherever it lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.kernels import is_on_device, kernels_for
from onnxcam.methods.base import Method
from onnxcam.runtime.device import DeviceTensor, Traffic
from onnxcam.surgeon.plan import ImageInput, PartFacts


@dataclass(frozen=True)
class Maps:
    """A method's maps of a batch.

    Attributes:
        signed: images first, ``[N, T, ...]``, on the host.
        raw: the same rectified, ``[N, T, *S]`` on the GPU; ``None`` where they are not there.
    """

    signed: NDArray[Any]
    raw: Any = None


def finish(
    method: Method,
    facts: PartFacts,
    values: Mapping[str, Any],
    traffic: Traffic,
    image: ImageInput,
) -> Maps:
    """Return the maps of what a method's part of the graph gave.

    Gradients at the input are brought to channels first, ``[N, T, C, *S]``.

    Args:
        method: what wrote the part, and finishes it.
        facts: what the part gives.
        values: outputs of the run by name, arrays or tensors on the GPU.
        traffic: counts what is copied to the host.
        image: how the input is laid out.
    """
    arrays = {
        key: _placed(values[name])
        if key in facts.images_first
        else np.swapaxes(_to_host(values[name], traffic), 0, 1)
        for key, name in facts.outputs.items()
        if key != "negative"
    }
    raw = None
    for key, relu in facts.weighted.items():
        a, w = arrays.pop(f"{key}:activations"), arrays.pop(f"{key}:weights")
        arrays[key] = kernels_for(a).combine_weighted(a, w, relu=relu)
        if method.finish is None and is_on_device(a):
            raw = kernels_for(a).combine_weighted(a, w, relu=True)
    if not method.on_device:
        arrays = {key: _to_host(array, traffic) for key, array in arrays.items()}
    if method.space == "input":
        arrays = {
            key: array if key in facts.sums else _channels_first(array, image, traffic)
            for key, array in arrays.items()
        }
    return Maps(_to_host(method.finished(arrays), traffic), raw)


def _channels_first(array: Any, image: ImageInput, traffic: Traffic) -> Any:
    """Return what has the input's shape with channels first; anything else as it is."""
    if image.layout.startswith("NC") or not image.takes(array.shape[2:]):
        return array
    return np.ascontiguousarray(image.channels_first(_to_host(array, traffic), 2))


def _placed(value: Any) -> Any:
    """Return a tensor for kernels: itself on the GPU, an array where it lies on the host."""
    if isinstance(value, DeviceTensor) and not is_on_device(value):
        return value.numpy()
    return value


def _to_host(array: Any, traffic: Traffic) -> NDArray[Any]:
    if isinstance(array, np.ndarray):
        return array
    if isinstance(array, DeviceTensor):
        return array.numpy()
    from onnxcam.kernels import cuda

    copied = cuda.to_host(array)
    traffic.add(to_host=copied.nbytes)
    return copied
