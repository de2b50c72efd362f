"""Random draws that do not depend on which tests ran before."""

from __future__ import annotations

import numpy as np
import pytest

from . import test_heads, test_instrument, test_strange


@pytest.fixture(autouse=True)
def _own_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, seed in ((test_instrument, 6), (test_heads, 12), (test_strange, 12)):
        monkeypatch.setattr(module, "RNG", np.random.default_rng(seed))
