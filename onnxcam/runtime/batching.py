"""Prepare the next item while the caller works on the present one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

A = TypeVar("A")
B = TypeVar("B")


def ahead(items: Sequence[A], prepare: Callable[[A], B]) -> Iterator[B]:
    """Yield ``prepare(item)`` in order; another thread is one item ahead of the caller.

    An error of ``prepare`` is raised when its item's turn comes.
    """
    if len(items) < 2:
        yield from map(prepare, items)
        return
    from concurrent.futures import ThreadPoolExecutor  # takes a few milliseconds to import

    with ThreadPoolExecutor(1, "onnxcam-ahead") as pool:
        waiting: Future[B] | None = None
        for item in items:
            following = pool.submit(prepare, item)
            if waiting is not None:
                try:
                    yield waiting.result()
                except BaseException:  # no further item is asked for
                    following.cancel()
                    raise
            waiting = following
        if waiting is not None:
            yield waiting.result()
