"""CUDA streams by their handles: wait for their work, and keep memory until it has been read.

The driver is called through ctypes, so that this needs neither Numba nor PyTorch.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from functools import cache
from typing import Any

from onnxcam.errors import InferenceError
from onnxcam.runtime.gpu import load_driver

DEFAULT = 1  # the handle that names CUDA's default stream
_NOT_READY = 600  # CUDA_ERROR_NOT_READY
_UNTIMED = 2  # CU_EVENT_DISABLE_TIMING


class Stream:
    """A stream that somebody else owns.

    Attributes:
        handle: the driver's, never 0.
    """

    def __init__(self, handle: int, owner: Any = None) -> None:
        """Take a handle; ``owner`` is kept alive."""
        self.handle, self._owner = handle, owner

    @staticmethod
    def of(given: Any) -> Stream | None:
        """Return the stream that ``int`` makes a handle of; ``None`` for none and for 0.

        ONNX Runtime takes a stream with the handle 0 for none at all.
        """
        handle = 0 if given is None else int(given)
        return Stream(handle, given) if handle else None

    def synchronize(self) -> None:
        """Wait for all work on the stream."""
        _call("cuStreamSynchronize", ctypes.c_void_p(self.handle))

    def mark(self) -> Event:
        """Return an event that passes when the work queued so far is done."""
        event = Event()
        _call("cuEventRecord", event.handle, ctypes.c_void_p(self.handle))
        return event

    def wait_for(self, event: Event) -> None:
        """Let later work on the stream wait for an event."""
        _call("cuStreamWaitEvent", ctypes.c_void_p(self.handle), event.handle, 0)


class Event:
    """A place in a stream's work; see :meth:`Stream.mark`."""

    def __init__(self) -> None:
        self.handle = ctypes.c_void_p()
        _call("cuEventCreate", ctypes.byref(self.handle), _UNTIMED)

    def __del__(self) -> None:
        if self.handle:
            _driver().cuEventDestroy_v2(self.handle)

    def passed(self) -> bool:
        """Whether the work before it is done."""
        code = _call("cuEventQuery", self.handle, allowed=_NOT_READY)
        return code == 0


class Keeper:
    """Keeps objects whose memory queued work still reads, until that work is done."""

    def __init__(self) -> None:
        self._dropped: deque[Any] = deque()
        self._kept: deque[tuple[Event, Any]] = deque()
        self._lock = threading.Lock()

    def keep(self, event: Event, *things: Any) -> None:
        """Keep things until the event has passed and :meth:`release` is called."""
        with self._lock:
            self._kept.append((event, things))

    def drop(self, thing: Any) -> None:
        """Take what its owner dropped while kernels on the default stream may still read it.

        It calls no driver, and may come from a finalizer.
        """
        self._dropped.append(thing)

    def release(self) -> None:
        """Let go of what no queued work reads any more."""
        with self._lock:
            things = [self._dropped.popleft() for _ in range(len(self._dropped))]
            if things:
                self._kept.append((Stream(DEFAULT).mark(), things))
            self._kept = deque(pair for pair in self._kept if not pair[0].passed())


@cache
def _driver() -> Any:
    return load_driver()


def _call(name: str, *args: Any, allowed: int = 0) -> int:
    """Call the driver, in the context that the CUDA runtime and ONNX Runtime share."""
    driver, context = _driver(), ctypes.c_void_p()
    driver.cuCtxGetCurrent(ctypes.byref(context))
    if not context:  # of this thread
        driver.cuInit(0)
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        driver.cuCtxSetCurrent(context)
    code: int = getattr(driver, name)(*args)
    if code not in (0, allowed):
        raise InferenceError(
            f"the NVIDIA driver's {name} gives error {code}: work queued on the stream before "
            "failed, or the stream is not one of this process."
        )
    return code
