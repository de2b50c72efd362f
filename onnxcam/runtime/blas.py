"""NumPy's linear algebra between two runs, on one thread.

Its threads spin for a while when they are done, as ONNX Runtime's do, so that each keeps the other
waiting: small products take ten times as long, and so does the run after them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any


@cache
def _controller() -> Any:
    """Return what knows the loaded libraries; ``None`` without threadpoolctl, which costs speed."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()


_LOCK = threading.Lock()


@contextlib.contextmanager
def on_one_thread() -> Iterator[None]:
    """Have NumPy's linear algebra take one thread, in the whole process.

    Of several threads that ask for it at once, the first decides for how long.
    """
    controller = _controller()
    if controller is None or not _LOCK.acquire(blocking=False):
        yield
        return
    try:
        with controller.limit(limits=1, user_api="blas"):
            yield
    finally:
        _LOCK.release()
