"""Where ``gpu.py`` runs: a GPU, or the CPU in a rehearsal."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

ROUNDS = 7
WARM = 0.2  # seconds: clocks rise, caches fill, everything is compiled
CLOCK = 2e9  # the most cycles a second of a GPU, for a delay that is not too short
Call = Callable[[], object]


class Place:
    """Where everything runs: a GPU, or in a rehearsal the CPU."""

    def __init__(self, rehearse: bool) -> None:
        import torch

        from onnxcam.kernels import cuda as kernels

        self.rehearse, self.torch, self.kernels = rehearse, torch, kernels
        cuda = self.cuda = kernels.cuda
        self.device = "cpu" if rehearse else "cuda"
        if rehearse:
            self.stream, self.l2, self.name = 0, 1, "none, this is a rehearsal on the CPU"
            return
        found = torch.cuda.get_device_properties(0)
        self.name, self.l2 = found.name, getattr(found, "L2_cache_size", 64 << 20)
        self.torch_stream = torch.cuda.Stream()
        self.stream = cuda.external_stream(self.torch_stream.cuda_stream)

    @property
    def providers(self) -> str:
        return "cpu" if self.rehearse else "cuda"

    @contextlib.contextmanager
    def as_device(self) -> Iterator[None]:
        """In a rehearsal, have the CPU and Numba's simulator stand in for the GPU."""
        from onnxcam import finishing, runner
        from onnxcam.runtime.session import Session

        class Pretended(Session):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.device = "cpu"

        before = runner.Session, runner.kernels_on_device, finishing._placed
        if self.rehearse:
            runner.Session = Pretended  # type: ignore[misc]
            runner.kernels_on_device = lambda _: True
            finishing._placed = lambda value: self.cuda.to_device(before[2](value))
        try:
            yield
        finally:
            runner.Session, runner.kernels_on_device, finishing._placed = before  # type: ignore[misc]

    def sizes(self, real: Any, rehearsed: Any) -> Any:
        return rehearsed if self.rehearse else real

    @contextlib.contextmanager
    def on_stream(self) -> Iterator[None]:
        if self.rehearse:
            yield
        else:
            with self.torch.cuda.stream(self.torch_stream):
                yield

    def random(self, *shape: int, half: bool = False) -> Any:
        values = self.torch.rand(*shape, device=self.device) * 2 - 1
        return values.half() if half else values

    def given(self, tensor: Any) -> Any:
        """What kernels take: the tensor itself, which they read in place."""
        return self.cuda.to_device(tensor.numpy()) if self.rehearse else tensor

    def host(self, array: Any) -> np.ndarray:
        self.wait()
        return array.copy_to_host() if hasattr(array, "copy_to_host") else array.cpu().numpy()

    def wait(self) -> None:
        if not self.rehearse:
            self.torch.cuda.synchronize()

    def seconds(self, calls: list[Call], least: int = 20) -> tuple[float, float]:
        """Return what a call takes on the GPU and on the host: median seconds.

        A delay on the GPU comes before the first event, so that all calls are queued when they
        start and the host's pace does not show. ``calls`` differ only in their buffers.
        """
        calls = calls * math.ceil(self.sizes(least, 1) / len(calls))
        times, hosts = [], []
        with self.on_stream():
            start, count = time.perf_counter(), 0
            while count < 1 or (time.perf_counter() - start < WARM and not self.rehearse):
                begin = time.perf_counter()
                self._all(calls)
                host, count = time.perf_counter() - begin, count + 1
                self.wait()
            for _ in range(self.sizes(ROUNDS, 1)):
                begin = time.perf_counter()
                if self.rehearse:
                    self._all(calls)
                    times.append((time.perf_counter() - begin) / len(calls))
                    hosts.append(times[-1])
                    continue
                first, last = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
                self.torch.cuda._sleep(int(CLOCK * (1.5 * host + 1e-4)))
                first.record()
                begin = time.perf_counter()
                self._all(calls)
                hosts.append((time.perf_counter() - begin) / len(calls))
                last.record()
                last.synchronize()
                times.append(first.elapsed_time(last) / 1e3 / len(calls))
        return statistics.median(times), statistics.median(hosts)

    def elapsed(self, call: Call, least: int) -> float:
        """Return the seconds a call takes from host to host, of ``least`` in a row."""
        with self.on_stream():
            start, count = time.perf_counter(), 0
            while count < 1 or (time.perf_counter() - start < WARM and not self.rehearse):
                call()
                count += 1
            self.wait()
            start = time.perf_counter()
            self._all([call] * least)
            self.wait()
        return (time.perf_counter() - start) / least

    @staticmethod
    def _all(calls: list[Call]) -> None:
        for call in calls:
            call()

    def replayed(self, calls: list[Call]) -> float | None:
        """Seconds a call in a CUDA graph, without what launching costs the CPU."""
        if self.rehearse:
            return None
        try:
            graph = self.torch.cuda.CUDAGraph()
            with self.torch.cuda.graph(graph, stream=self.torch_stream):
                self._all(calls)
            return self.seconds([graph.replay])[0] / len(calls)
        except Exception:
            traceback.print_exc()
            return None

    def sets(self, bytes_moved: int) -> int:
        """How many sets of buffers to rotate among, so that together they fill L2 four times.

        Not more than 100: a GPU queues about a thousand launches.
        """
        return self.sizes(min(max(2, math.ceil(4 * self.l2 / bytes_moved)), 100), 1)
