"""Tensors that stay on the device, and a count of transfers."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}


class Traffic:
    """Bytes that a session moved between host and device; both stay 0 on the CPU.

    Only tensors that onnxcam passes to and takes from a session are counted. ONNX Runtime's own
    copies between operators are not; its profiler shows them.

    Attributes:
        to_device: bytes uploaded.
        to_host: bytes downloaded.
    """

    def __init__(self) -> None:
        self.to_device = self.to_host = 0
        self._lock = threading.Lock()

    def add(self, *, to_device: int = 0, to_host: int = 0) -> None:
        """Count a transfer."""
        with self._lock:
            self.to_device += to_device
            self.to_host += to_host


class DeviceTensor:
    """An output of a session that was left on the device.

    Kernels, CuPy and PyTorch read it in place, through ``__cuda_array_interface__`` or (in its
    first shape) DLPack. It is ready for work on the session's stream; work on another stream must
    wait for that one.
    """

    def __init__(self, value: Any, stream: Any, traffic: Traffic) -> None:
        self._value, self._stream, self._traffic = value, stream, traffic
        self.shape: tuple[int, ...] = tuple(value.shape())
        self.dtype: np.dtype[Any] = np.dtype(_TYPES[value.data_type()])

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self._value.device_name() != "cuda":
            raise AttributeError("__cuda_array_interface__")  # so that hasattr is False
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._value.data_ptr(), False),
            "strides": None,
            "version": 3,
            "stream": int(self._stream) if self._stream else 1,  # 1 is CUDA's default stream
        }

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        return self._value.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> Any:
        return self._value.__dlpack_device__()

    def reshape(self, *shape: int) -> DeviceTensor:
        """Return the same memory with another shape of equal size."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{self.shape} cannot become {shape}.")
        view = DeviceTensor(self._value, self._stream, self._traffic)
        view.shape = shape
        return view

    def numpy(self) -> NDArray[Any]:
        """Wait for the stream and copy to the host."""
        if self._stream:
            self._stream.synchronize()
        array: NDArray[Any] = self._value.numpy().reshape(self.shape)
        if self._value.device_name() == "cuda":
            self._traffic.add(to_host=array.nbytes)
        return array
