"""Compare gradients with respect to one operand with differences of a forward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..finite import central
from .forward import Oracle
from .models import Feeds

TARGETS = 2
_ELEMENTS, _DIRECTIONS = 4, 3  # probes
_SMALL = 3e-3  # gradients below are of rounding
_FLAT = 1e-3  # slopes of what has no gradient are below

RIGHT, WRONG, NO_ORACLE = "right", "wrong", "no oracle"
NOTHING = "nothing"  # there is no gradient, and differences are 0
SETTING = "setting"  # no gradient to what says how to compute; differences are not 0


@dataclass(frozen=True)
class Pair:
    """What was found of one output and one input."""

    of: str
    to: str
    verdict: str
    why: str = ""  # of a right one, the forward that differences were taken of
    stored: bool = False  # with operands of integers and booleans stored in the model


@dataclass
class Probe:
    """Compares gradients with respect to one operand with differences of one forward."""

    oracle: Oracle
    outputs: list[str]
    feeds: Feeds
    seeds: Feeds
    name: str
    half: bool
    rng: np.random.Generator
    size: dict[str, float]  # of each output's values

    def pairs(self, wanted: dict[str, np.ndarray | None]) -> list[Pair]:
        """Return a verdict for each output."""
        found = {of: NOTHING if g is None else RIGHT for of, g in wanted.items()}
        why = dict.fromkeys(wanted, "")
        for v in self._directions():
            for of, (bad, text) in self._along(v, wanted).items():
                if found[of] in (NOTHING, RIGHT):
                    found[of], why[of] = bad, text
        name = self.oracle.name
        return [Pair(of, self.name, found[of], f"{name}{why[of]}") for of in wanted]

    def _directions(self) -> Iterator[np.ndarray]:
        """Yield single elements and random directions, of finite elements."""
        x = self.feeds[self.name]
        finite = np.flatnonzero(np.isfinite(x))
        for index in self.rng.permutation(finite)[:_ELEMENTS]:
            yield np.eye(1, x.size, index).reshape(x.shape)
        for _ in range(_DIRECTIONS if finite.size > 1 else 0):
            yield np.where(np.isfinite(x), self.rng.normal(size=x.shape), 0)

    def _along(
        self, v: np.ndarray, wanted: dict[str, np.ndarray | None]
    ) -> dict[str, tuple[str, str]]:
        """Return what is not as it should be along one direction."""
        x = self.feeds[self.name]
        size = np.clip(np.abs(x[np.isfinite(x)]).mean(), 1e-2, 10)
        bad: dict[str, tuple[str, str]] = {}
        last: dict[str, np.ndarray] = {}
        left = list(wanted)
        for step in self.oracle.steps * size:
            try:
                numeric = self._slopes(v, step)
            except Exception as error:  # a step changes a shape, or leaves what it may be
                text = f": {str(error).strip().splitlines()[0]}"
                none = {of: NOTHING if wanted[of] is None else NO_ORACLE for of in left}
                return {of: (none[of], text) for of in left}
            for of in list(left):
                g = wanted[of]
                expected = np.zeros(TARGETS)
                if g is not None:  # where an operand is infinite, its slope is not asked for
                    expected = np.where(v == 0, 0, g).reshape(TARGETS, -1) @ v.ravel()
                off = np.abs(numeric[of] - expected).max()
                if off <= self._tolerance(of, g, v, step):
                    left.remove(of)
                    bad.pop(of, None)
                    continue
                doubtful = of not in last or np.abs(numeric[of] - last[of]).max() > 0.2 * off
                text = f": {'no gradient' if g is None else expected}, differences {numeric[of]}"
                bad[of] = NO_ORACLE if doubtful else SETTING if g is None else WRONG, text
                last[of] = numeric[of]
        return bad

    def _slopes(self, v: np.ndarray, step: float) -> dict[str, np.ndarray]:
        """Return the slope of each cotangent's product with each output."""
        x = self.feeds[self.name]

        def along(h: float) -> np.ndarray:
            moved = np.where(v == 0, x, x + h * v)
            run = self.oracle.run({**self.feeds, self.name: moved})
            rows = []
            for of, y in zip(self.outputs, run, strict=True):
                if y.shape != self.seeds[of].shape[1:]:
                    raise ValueError("a step changes the shape")
                values = np.where(np.isfinite(y), y, 0).ravel()
                rows.append(self.seeds[of].reshape(TARGETS, -1) @ values)
            return np.stack(rows)

        return dict(zip(self.outputs, central(along, step), strict=True))

    def _tolerance(self, of: str, g: np.ndarray | None, v: np.ndarray, step: float) -> float:
        """Return how far apart slopes may be: rounding of the gradient and of the forward."""
        length = float(np.linalg.norm(v))
        if g is None:
            return _FLAT * length
        largest = max(np.abs(g[np.isfinite(g)]).max(initial=0), _SMALL)
        relative = 3e-2 if self.half else 5e-4
        rounding = self.oracle.noise * np.abs(self.seeds[of]).max(initial=0) * self.size[of] / step
        return float(relative * largest * length + rounding)
