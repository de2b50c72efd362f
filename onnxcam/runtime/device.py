"""Tensors that stay on the device, and a count of transfers."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.runtime.streams import DEFAULT, Keeper, Stream

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
    first shape) DLPack. It is ready for work on the session's stream, and for the stream that a
    consumer names to DLPack; work on another stream must wait for the session's. It may be dropped
    while kernels on the stream that it names still read it. Memory that was handed out by DLPack
    goes back when the consumer drops it, whose own work must be done by then.
    """

    def __init__(
        self, value: Any, stream: Stream | None, traffic: Traffic, keeper: Keeper | None = None
    ) -> None:
        """Take a value of ONNX Runtime's.

        Args:
            value: the ``OrtValue``.
            stream: the session's; ``None`` if the run was waited for.
            traffic: counts what is copied to the host.
            keeper: takes the value when the tensor is dropped, where nothing else keeps a next run
                from writing over it: without a stream that kernels share with the session.
        """
        self._value, self._stream, self._traffic = value, stream, traffic
        self._keeper = keeper
        self.shape: tuple[int, ...] = tuple(value.shape())
        self.dtype: np.dtype[Any] = np.dtype(_TYPES[value.data_type()])

    def __del__(self) -> None:
        keeper = getattr(self, "_keeper", None)
        if keeper is not None and self._value.device_name() == "cuda":
            keeper.drop(self._value)

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
            "stream": self._stream.handle if self._stream else DEFAULT,
        }

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        """Return a capsule that is ready for work on a stream.

        Args:
            stream: the consumer's, as in the array API standard: a handle, 1 or ``None`` for the
                default stream, -1 to wait for nothing. ONNX Runtime would ignore it.
        """
        consumer = DEFAULT if stream is None else stream
        if self._stream and consumer not in (-1, self._stream.handle):
            Stream(consumer).wait_for(self._stream.mark())
        return self._value.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self._value.__dlpack_device__()

    def reshape(self, *shape: int) -> DeviceTensor:
        """Return the same memory with another shape of equal size."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{self.shape} cannot become {shape}.")
        view = DeviceTensor(self._value, self._stream, self._traffic, self._keeper)
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
