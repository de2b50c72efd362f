"""The implementations that are compared: NumPy, and C at each level of the processor."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from onnxcam.kernels import reference

native = pytest.importorskip("onnxcam.kernels.native", reason="the C kernels were not built")
from onnxcam.kernels import _native  # noqa: E402


class AtLevel:
    """The native kernels as a processor of a lower level runs them."""

    def __init__(self, level: int) -> None:
        self.level = level

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            _native.limit_level(self.level)
            try:
                return getattr(native, name)(*args, **options)
            finally:
                _native.limit_level(1)

        return call


BOTH: list[ModuleType | AtLevel] = [reference, AtLevel(0), AtLevel(1)]
TYPES = st.sampled_from([np.float32, np.float16])
