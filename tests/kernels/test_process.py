"""The native kernels in a process: threads, children, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxcam.errors import KernelsError
from onnxcam.imaging.colour import colour_table
from onnxcam.kernels import View, kernels_name

from .sides import native


def test_the_native_kernels_are_the_ones_in_use() -> None:
    assert kernels_name() == "native"


def test_the_number_of_threads_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(1, 96, 61, 63)).astype("f")
    g = rng.normal(size=(1, 3, 96, 61, 63)).astype("f")
    many = rng.normal(size=(37, 64, 14, 14)).astype("f")
    slopes = rng.normal(size=(37, 1, 64, 14, 14)).astype("f")
    raw = rng.uniform(size=(5, 7, 7)).astype("f")
    view = View.whole((301, 403), (7, 7))
    guided = rng.normal(size=(5, 3, 301, 403)).astype("f")
    photo = rng.integers(0, 256, (301, 403, 3)).astype(np.uint8)
    calls: list[Callable[[int], np.ndarray]] = [
        lambda threads: native.combine(a, g, threads=threads),
        lambda threads: native.combine(many, slopes, threads=threads),
        lambda threads: native.combine_weighted(a, g, threads=threads),
        lambda threads: native.combine_weighted(a, g[..., 0, 0], threads=threads),
        lambda threads: native.upsample(raw, view, normalise=True, threads=threads),
        lambda threads: native.fuse(guided, raw, threads=threads),
        lambda threads: native.paint(
            photo, raw[0], view, colour_table(), 0.5, 0.5, threads=threads
        ),
    ]
    for call in calls:
        alone = call(1)
        for threads in (2, 3, 8, 1000):
            assert_array_equal(call(threads), alone)


def test_the_environment_gives_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    a, g = np.ones((1, 2, 3), "f"), np.ones((1, 1, 2, 3), "f")
    monkeypatch.setenv("ONNXCAM_THREADS", "2")
    assert_array_equal(native.combine(a, g), np.full((1, 1, 3), 2, "f"))
    for wrong in ("many", "0", "-1"):
        monkeypatch.setenv("ONNXCAM_THREADS", wrong)
        with pytest.raises(KernelsError, match="ONNXCAM_THREADS"):
            native.combine(a, g)


ASAN = "asan" in os.environ.get("LD_PRELOAD", "")
CONCURRENT = """
import os, sys, threading
import numpy as np
from onnxcam.kernels import native

a, g = np.ones((8, 64, 40, 40), "f"), np.ones((8, 1, 64, 40, 40), "f")

def check(times):
    for _ in range(times):
        assert (native.combine(a, g, threads=3) == 64).all()

threads = [threading.Thread(target=check, args=(20,)) for _ in range(3)]
for thread in threads:
    thread.start()
children = []
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        check(5)
        os._exit(0)
    children.append(child)
for thread in threads:
    thread.join()
assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_threads_at_once_and_children() -> None:
    # In a child, asan's allocator may find its lock held for ever by a thread of the parent.
    command = [sys.executable, "-W", "ignore", "-c", CONCURRENT, "0" if ASAN else "5"]
    subprocess.run(command, check=True, timeout=120)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.skipif(ASAN, reason="asan keeps what is freed")
def test_a_thousand_calls_leave_memory_where_it_was() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 16, 25, 25)).astype("f")
    g = rng.normal(size=(2, 2, 16, 25, 25)).astype(np.float16)
    raw = rng.uniform(size=(2, 7, 7)).astype("f")
    view = View.whole((96, 128), (7, 7))
    guided = rng.normal(size=(2, 3, 96, 128)).astype(np.float16)
    photo = rng.integers(0, 256, (96, 128, 3)).astype(np.uint8)

    def misfit() -> None:
        with pytest.raises(ValueError, match="do not fit"):
            native.combine(a, g[:1])

    calls: dict[str, Callable[[], object]] = {
        "combine": lambda: native.combine(a, g),
        "pixels": lambda: native.combine_weighted(a, g),
        "channels": lambda: native.combine_weighted(a, g[..., 0, 0]),
        "upsample": lambda: native.upsample(raw, view, normalise=True),
        "upsampled_max": lambda: native.upsampled_max(raw[0], view),
        "fuse": lambda: native.fuse(guided, raw),
        "paint": lambda: native.paint(photo, raw[0], view, colour_table(), 0.5, 0.5),
        "misfit": misfit,
    }

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for name, call in calls.items():
        for _ in range(10):
            call()
        before = resident()
        for _ in range(990):
            call()
        assert resident() - before < 1 << 20, name
