"""How likely a text is by connectionist temporal classification (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def log_softmax(logits: Array) -> NDArray[np.float64]:
    """Return the logarithms of the classes' probabilities, along the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def greedy(logits: Array, blank: int) -> list[int]:
    """Return the best class of every step, repeats merged, without blanks."""
    best = logits.argmax(axis=-1)
    changed = np.diff(best, prepend=-1) != 0
    return [int(c) for c in best[changed] if c != blank]


def steps_needed(text: Sequence[int]) -> int:
    """Return in how many steps a text can be read: between equal classes lies a blank."""
    return len(text) + sum(a == b for a, b in pairwise(text))


def log_likelihood(
    logits: Array, text: Sequence[int], blank: int
) -> tuple[float, NDArray[np.float64]]:
    """Return log p(text), summed over all alignments, and its gradient by the logits.

    The forward and backward variables are those of Graves et al. 2006, section 4.1, as logarithms;
    the gradient is eq. 16 with its sign turned: how likely class k is at step t given the text,
    less how likely it is without.

    Args:
        logits: ``[T, C]``, steps by classes; what a Softmax reads, or its logarithm.
        text: classes, at most as many as :func:`steps_needed` allows, else p is 0.
        blank: the class of the blank.

    Returns:
        the logarithm, and the gradient, float64 ``[T, C]``.
    """
    log_p = log_softmax(logits)
    states = np.full(2 * len(text) + 1, blank)
    states[1::2] = text
    emitted = log_p[:, states]  # [T, S]
    # From two states before: over a blank, between classes that differ.
    skips = np.zeros(len(states), bool)
    skips[3::2] = states[3::2] != states[1:-2:2]
    steps, nothing = len(logits), -np.inf
    forward = np.full((steps, len(states)), nothing)
    forward[0, :2] = emitted[0, :2]
    for t in range(1, steps):
        before = forward[t - 1]
        forward[t] = emitted[t] + _log_sum(
            before, _shifted(before, 1), np.where(skips, _shifted(before, 2), nothing)
        )
    backward = np.full_like(forward, nothing)
    backward[-1, -2:] = 0
    for t in range(steps - 2, -1, -1):
        after = backward[t + 1] + emitted[t + 1]
        jumps = np.where(skips, after, nothing)
        backward[t] = _log_sum(after, _shifted(after, -1), _shifted(jumps, -2))
    total = float(np.logaddexp.reduce(forward[-1, -2:]))
    if total == nothing:
        return total, np.zeros_like(log_p)
    occupied = np.zeros_like(log_p)
    np.add.at(occupied.T, states, np.exp(forward + backward - total).T)
    return total, occupied - np.exp(log_p)


def _shifted(values: Array, by: int) -> Array:
    """Return values moved to higher (or lower) states, -inf where nothing comes from."""
    found = np.full_like(values, -np.inf)
    if by > 0:
        found[by:] = values[:-by]
    else:
        found[:by] = values[-by:]
    return found


def _log_sum(*terms: Array) -> Array:
    found: Array = np.logaddexp.reduce(terms)
    return found
