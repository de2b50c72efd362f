"""Streams, and what lives until their work is done, on a stand-in for the NVIDIA driver."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from onnxcam.errors import InferenceError
from onnxcam.runtime import streams
from onnxcam.runtime.session import Session
from onnxcam.runtime.streams import Keeper, Stream

from .test_session import Pretended


class Driver:
    """Events pass when the test says so."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.pending: set[int] = set()
        self.events, self.context, self.code = 0, 1, 0

    def cuInit(self, flags: int) -> None:  # noqa: N802
        self.log.append(("init",))

    def cuCtxGetCurrent(self, pointer: Any) -> None:  # noqa: N802
        pointer._obj.value = self.context

    def cuDevicePrimaryCtxRetain(self, pointer: Any, device: int) -> None:  # noqa: N802
        pointer._obj.value = 8

    def cuCtxSetCurrent(self, context: Any) -> None:  # noqa: N802
        self.context = context.value

    def cuEventCreate(self, pointer: Any, flags: int) -> int:  # noqa: N802
        assert flags == 2, "without timing"
        self.events += 1
        pointer._obj.value = self.events
        self.pending.add(self.events)
        return 0

    def cuEventRecord(self, event: Any, stream: Any) -> int:  # noqa: N802
        self.log.append(("record", event.value, stream.value))
        return 0

    def cuStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> int:  # noqa: N802
        self.log.append(("wait", stream.value, event.value))
        return 0

    def cuEventQuery(self, event: Any) -> int:  # noqa: N802
        return self.code or (600 if event.value in self.pending else 0)

    def cuEventDestroy_v2(self, event: Any) -> int:  # noqa: N802
        self.log.append(("destroy", event.value))
        return 0

    def cuStreamSynchronize(self, stream: Any) -> int:  # noqa: N802
        self.log.append(("synchronize", stream.value))
        return self.code


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(streams, "_driver", lambda: driver)
    return driver


class Numbas:
    """A stream as Numba wraps it."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __int__(self) -> int:
        return self.handle


def images(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 16, 16)).astype("f")


def test_what_is_a_stream() -> None:
    assert Stream.of(None) is Stream.of(0) is Stream.of(Numbas(0)) is None
    for given in (77, Numbas(77)):
        stream = Stream.of(given)
        assert stream is not None and stream.handle == 77


@pytest.mark.parametrize("given", [77, Numbas(77)])
def test_numpy_waits_for_the_stream(given: Any, cnn: Path, driver: Driver) -> None:
    session = Pretended(cnn, cnn.parent, "cpu", stream=given)
    [found] = session.run_on_device({"image": images()}).values()
    assert ("synchronize", 77) not in driver.log
    assert found.numpy().shape == found.shape
    assert driver.log.count(("synchronize", 77)) == 1


@pytest.mark.parametrize("stream", [None, 0, Numbas(0)])
def test_without_a_stream_the_run_is_waited_for(
    stream: Any, cnn: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[tuple[str, str]] = []
    options = onnxruntime.RunOptions
    add = options.add_run_config_entry
    monkeypatch.setattr(
        options, "add_run_config_entry", lambda self, *e: (entries.append(e), add(self, *e))
    )
    Pretended(cnn, cnn.parent, "cpu", stream=stream).run_on_device({"image": images()})
    assert entries == [] and driver.log == []
    Pretended(cnn, cnn.parent, "cpu", stream=77).run_on_device({"image": images()})
    assert entries == [("disable_synchronize_execution_providers", "1")]


def test_dlpack_makes_the_consumer_s_stream_wait(cnn: Path, driver: Driver) -> None:
    session = Pretended(cnn, cnn.parent, "cpu", stream=77)
    [found] = session.run_on_device({"image": images()}).values()
    for consumer, waits in ((None, 1), (1, 1), (2, 2), (99, 99)):
        driver.log.clear()
        found.__dlpack__(stream=consumer)
        [record, wait, *_] = driver.log
        assert record == ("record", record[1], 77) and wait == ("wait", waits, record[1])
    driver.log.clear()
    found.__dlpack__(stream=77)  # the same stream
    found.__dlpack__(stream=-1)  # the consumer's own business
    assert driver.log == []
    alone = Pretended(cnn, cnn.parent, "cpu")  # it waited
    [found] = alone.run_on_device({"image": images()}).values()
    found.__dlpack__(stream=99)
    assert driver.log == []


def test_queued_runs_keep_their_inputs(cnn: Path, driver: Driver) -> None:
    session = Pretended(cnn, cnn.parent, "cpu", stream=77)
    uploaded = onnxruntime.OrtValue.ortvalue_from_numpy(images())
    alive = weakref.ref(uploaded)
    session.run_on_device({"image": uploaded})
    del uploaded
    session.run_on_device({"image": onnxruntime.OrtValue.ortvalue_from_numpy(images())})
    gc.collect()
    assert alive() is not None, "the first run may not have read it yet"
    driver.pending.clear()
    session.run_on_device({"image": images()})
    gc.collect()
    assert alive() is None, "nothing piles up"
    assert ("destroy", 1) in driver.log


def test_host_arrays_live_as_long(
    cnn: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Any]] = []
    from_numpy = onnxruntime.OrtValue.ortvalue_from_numpy

    def watched(*given: Any) -> Any:
        value = from_numpy(*given)
        made.append(weakref.ref(value))
        return value

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", watched)
    session = Pretended(cnn, cnn.parent, "cpu", stream=77)
    session.run_on_device({"image": images()})
    gc.collect()
    assert made[0]() is not None
    driver.pending.clear()
    session.run_on_device({"image": images()})
    gc.collect()
    assert made[0]() is None and made[1]() is not None


def test_a_dropped_output_outlives_kernels_that_read_it(
    cnn: Path, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a shared stream, kernels read on the default one, and a next run does not wait."""
    session = Pretended(cnn, cnn.parent, "cpu")
    [found] = session.run_on_device({"image": images()}).values()
    value = weakref.ref(found._value)
    monkeypatch.setattr(onnxruntime.OrtValue, "device_name", lambda self: "cuda")
    assert found.__cuda_array_interface__["stream"] == 1
    view = found.reshape(found.shape[0] * found.shape[1])
    del found
    session.run({"image": images()})
    del view
    gc.collect()
    assert value() is not None
    session.run({"image": images()})
    assert driver.log[-1] == ("record", driver.events, 1), "after what was queued before the drop"
    gc.collect()
    assert value() is not None
    driver.pending.clear()
    session.run({"image": images()})
    gc.collect()
    assert value() is None


def test_a_thread_gets_the_shared_context(driver: Driver) -> None:
    driver.context = None
    Stream(5).synchronize()
    assert driver.log == [("init",), ("synchronize", 5)] and driver.context == 8


def test_errors_of_the_driver_are_told(driver: Driver) -> None:
    keeper = Keeper()
    keeper.keep(Stream(5).mark(), "thing")
    driver.code = 700
    with pytest.raises(InferenceError, match="cuStreamSynchronize gives error 700: work queued"):
        Stream(5).synchronize()
    with pytest.raises(InferenceError, match="cuEventQuery gives error 700"):
        keeper.release()


def test_a_session_on_the_cpu_asks_no_driver(cnn: Path, driver: Driver) -> None:
    session = Session(cnn, cnn.parent, "cpu", stream=77)
    session.run({"image": images()})
    assert driver.log == [] and driver.events == 0
