"""Operand values for cases: shapes, kinds of values, and the list that cases are added to."""

from __future__ import annotations

import numpy as np

from ..finite import Case

rng = np.random.default_rng(3)


def reseed(name: str) -> None:
    """Draw each module's values from a seed of its own."""
    rng.bit_generator.state = np.random.default_rng(list(name.encode())).bit_generator.state


def away(*shape: int, kinks: tuple[float, ...] = (0.0,), spread: float = 1.5) -> np.ndarray:
    """Normal values that keep 0.05 from every kink."""
    x = rng.normal(scale=spread, size=shape)
    for kink in kinks:
        near = np.abs(x - kink) < 0.05
        x = np.where(near, kink + np.where(x < kink, -0.1, 0.1), x)
    return x


def positive(*shape: int) -> np.ndarray:
    return rng.uniform(0.3, 2.5, size=shape)


def distinct(*shape: int) -> np.ndarray:
    """Values that differ by at least 0.05, for operators that pick the largest."""
    size = int(np.prod(shape))
    return (rng.permutation(size) * 0.05 - size * 0.02).reshape(shape)


def weight(*shape: int) -> np.ndarray:
    return rng.normal(size=shape)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CASES: list[Case] = []


def case(op: str, *inputs: object, **options: object) -> None:
    wrt = options.pop("wrt", (0,))
    known = ("opset", "outputs", "dynamic", "linear", "domain", "obvious", "fed", "unread")
    settings = {k: options.pop(k) for k in known if k in options}
    CASES.append(Case(op, list(inputs), options, wrt=wrt, **settings))
