"""NumPy's linear algebra takes one thread while methods use it between runs."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import onnxcam
from onnxcam.methods.base import Method
from onnxcam.runtime.blas import on_one_thread


def threads() -> list[int]:
    return [d["num_threads"] for d in ThreadpoolController().info() if d["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def _several() -> None:
    """Skip where there is one thread anyway."""
    if not any(n > 1 for n in threads()):
        pytest.skip("NumPy has one thread here")


def test_several_threads_at_once() -> None:
    before = threads()
    inside, go = threading.Event(), threading.Event()

    def other() -> None:
        with on_one_thread():
            inside.set()
            go.wait(20)

    with on_one_thread():
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(20)
        assert set(threads()) == {1}
    go.set()
    thread.join()
    assert threads() == before


def test_an_error_gives_them_back() -> None:
    before = threads()
    with pytest.raises(ZeroDivisionError), on_one_thread():
        1 / 0  # noqa: B018
    assert threads() == before


def test_a_method_that_finishes_on_the_host(cnn) -> None:
    seen: list[int] = []

    def finish(arrays):
        seen.extend(threads())
        return arrays["a"].sum(axis=2)

    method = Method(
        "mine", "", write=lambda s: {"a": s.per_target(s.activations)}, finish=finish, space="layer"
    )
    before = threads()
    explainer = onnxcam.Explainer(cnn, method=method, preprocess="unit", providers="cpu")
    explainer.explain(np.zeros((3, 16, 16), np.float32))
    assert seen and set(seen) == {1}
    assert threads() == before
