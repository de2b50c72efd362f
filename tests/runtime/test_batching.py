"""Preparing ahead."""

from __future__ import annotations

import threading

import pytest

from onnxcam.runtime.batching import ahead


def test_order_and_one_item_ahead() -> None:
    started: list[int] = []
    ready = [threading.Event() for _ in range(5)]

    def prepare(item: int) -> int:
        started.append(item)
        ready[item].set()
        return item * item

    found = []
    for place, value in enumerate(ahead(range(5), prepare)):
        if place < 4:
            assert ready[place + 1].wait(5), "the next item is not prepared meanwhile"
        assert len(started) <= place + 2, "more than one item ahead"
        found.append(value)
    assert found == [0, 1, 4, 9, 16] and started == [0, 1, 2, 3, 4]


def test_errors_come_in_their_turn() -> None:
    def prepare(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    found = []
    with pytest.raises(ValueError, match="two"):
        for value in ahead(range(5), prepare):
            found.append(value)
    assert found == [0, 1]


def test_the_caller_may_stop() -> None:
    started: list[int] = []
    values = ahead(range(100), lambda item: started.append(item) or item)
    assert next(values) == 0
    values.close()
    assert len(started) <= 2
    assert not [t for t in threading.enumerate() if t.name.startswith("onnxcam-ahead")]


def test_one_item_needs_no_thread() -> None:
    [found] = ahead([1], lambda item: threading.current_thread())
    assert found is threading.main_thread() and list(ahead([], lambda item: item)) == []
