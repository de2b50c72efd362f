"""Views of maps for the tests of every implementation."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from onnxcam.kernels import Axis


def axis(length: int, size: int, scale: float, offset: float) -> Axis:
    """Visible are the pixels whose centre falls on a map of ``size`` elements."""
    u = (np.arange(length) + 0.5) * scale + offset
    seen = np.flatnonzero((u >= 0) & (u <= size))
    return Axis(length, scale, offset, *((seen[0], seen[-1] + 1) if seen.size else (0, 0)))


def views(most: int, *more: st.SearchStrategy) -> st.SearchStrategy:
    """Draw a map's size up to ``most``, a photograph's, zoom and offset, and what else is given."""
    sides = [st.integers(1, n) for n in (most, most, 40, 40)]
    return st.tuples(*sides, st.floats(0.4, 2.0), st.floats(-3.0, 3.0), *more)
