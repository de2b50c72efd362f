"""Sessions: choice of providers, bound inputs and outputs, counted traffic.

There is no GPU here. What needs one is pretended: providers, drivers, and a "device" that is the
host's own memory, which goes through the same binding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import InferenceError, RuntimeMissingError
from onnxcam.runtime import gpu, session
from onnxcam.runtime.session import Session, choose_providers
from onnxcam.runtime.streams import Stream

from ..instrumented import ACTIVATIONS, GRADIENTS, instrument

H200 = gpu.Gpu("H200", 139 << 30, "9.0", "13.0")
CPU, CUDA = session.CPU, session.CUDA


def pretend(
    monkeypatch: pytest.MonkeyPatch, providers: list[str], found: gpu.Gpu | str, built: str = "13.0"
) -> None:
    """Let ONNX Runtime claim providers and a version of CUDA, and the driver a GPU."""
    runtime = SimpleNamespace(
        __version__="1.31.1", cuda_version=built, get_available_providers=lambda: providers
    )
    monkeypatch.setattr(session, "load_runtime", lambda: runtime)
    monkeypatch.setattr(gpu, "find_gpu", lambda: found)


def test_auto_takes_the_gpu_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, [CUDA, CPU], H200)
    assert choose_providers("auto") == choose_providers(None) == [CUDA, CPU]
    assert choose_providers("cpu") == [CPU]
    assert choose_providers("cuda") == [CUDA]
    with_options = [(CUDA, {"device_id": 0}), CPU]
    assert choose_providers(with_options) == with_options
    for found in ("there is no NVIDIA driver", "the NVIDIA driver finds no GPU"):
        pretend(monkeypatch, [CUDA, CPU], found)
        assert choose_providers("auto") == [CPU]
        assert choose_providers([CUDA, CPU]) == [CPU]
    pretend(monkeypatch, [CPU], H200)
    assert choose_providers("auto") == [CPU]


@pytest.mark.parametrize(
    ("providers", "found", "built", "message"),
    [
        ([CPU], H200, "", r"this onnxruntime 1.31.1 has no CUDA in it.*pip install onnxcam\[gpu\]"),
        ([CUDA, CPU], "there is no NVIDIA driver (libcuda)", "13.0", r"no NVIDIA driver \(libcuda"),
        ([CUDA, CPU], "the NVIDIA driver finds no GPU", "13.0", "finds no GPU"),
        (
            [CUDA, CPU],
            gpu.Gpu("A100", 1, "8.0", "12.4"),
            "13.0",
            "built for CUDA 13.0, the driver supports CUDA 12.4 at most",
        ),
    ],
)
def test_cuda_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
    providers: list[str],
    found: gpu.Gpu | str,
    built: str,
    message: str,
) -> None:
    pretend(monkeypatch, providers, found, built)
    for requested in ("cuda", [CUDA], [(CUDA, {"device_id": 0})]):
        with pytest.raises(RuntimeMissingError, match="CUDA cannot be used: .*" + message):
            choose_providers(requested)


def test_an_older_runtime_without_its_version_is_not_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, [CUDA, CPU], gpu.Gpu("A100", 1, "8.0", "12.4"), "")
    assert choose_providers("cuda") == [CUDA]


def driver(init: int = 0, count: int = 1, failing: str = "") -> Any:
    """A pretended libcuda."""

    def fill(value: Any) -> Callable[..., int]:
        def call(pointer: Any, *_: Any) -> int:
            pointer._obj.value = value
            return 0

        return call

    def name(buffer: Any, *_: Any) -> int:
        buffer.value = b"NVIDIA H200"
        return 0

    calls = {
        "cuInit": lambda flags: init,
        "cuDriverGetVersion": fill(13020),
        "cuDeviceGetCount": fill(count),
        "cuDeviceGet": fill(0),
        "cuDeviceGetName": name,
        "cuDeviceTotalMem_v2": fill(139 << 30),
        "cuDeviceGetAttribute": lambda pointer, which, _: fill(9 if which == 75 else 0)(pointer),
    }
    if failing:
        calls[failing] = lambda *_: 999
    return SimpleNamespace(**calls)


def test_the_driver_is_asked() -> None:
    assert gpu._ask(driver()) == gpu.Gpu("NVIDIA H200", 139 << 30, "9.0", "13.2")
    assert str(gpu._ask(driver())) == (
        "NVIDIA H200, 139 GiB, compute capability 9.0, driver for CUDA 13.2"
    )
    assert "finds no GPU" in str(gpu._ask(driver(init=100)))
    assert "finds no GPU" in str(gpu._ask(driver(count=0)))
    assert "cuInit gives error 3" in str(gpu._ask(driver(init=3)))
    assert "does not describe its GPU (error 999" in str(gpu._ask(driver(failing="cuDeviceGet")))


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert "there is no NVIDIA driver" in str(gpu.find_gpu())


def test_the_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runtime = SimpleNamespace(__file__=str(tmp_path / "onnxruntime" / "__init__.py"))

    def refuse(name: str) -> None:
        raise OSError("libcudnn.so.9: cannot open shared object file: No such file or directory")

    assert "could not start its CUDA provider" in gpu.load_problem(runtime)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert "needs libcudnn.so.9, which is not found" in gpu.load_problem(runtime)


class Pretended(Session):
    """A session whose device is the host's memory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.device = "cpu"


def test_bound_runs_equal_plain_ones(cnn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).normal(size=(11, 3, 16, 16)).astype("f")
    plain = onnxcam.Explainer(cnn)
    monkeypatch.setattr(onnxcam.runner, "Session", Pretended)
    bound = onnxcam.Explainer(cnn)
    for targets in (None, ["top:2", 3]):
        expected = plain.explain_batch(images, targets)
        for one, other in zip(expected, bound.explain_batch(images, targets), strict=True):
            for a, b in zip(one, other, strict=True):
                assert (a.target, a.rank, a.score) == (b.target, b.rank, b.score)
                np.testing.assert_array_equal(a.signed, b.signed)
    assert (plain.traffic.to_device, plain.traffic.to_host) == (0, 0)


def test_traffic_is_images_in_and_maps_out(cnn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxcam.runner, "Session", Pretended)
    explainer = onnxcam.Explainer(cnn)
    images = np.random.default_rng(0).normal(size=(5, 3, 16, 16)).astype("f")
    found = explainer.explain_batch(images)
    maps = sum(e.signed.nbytes for [e] in found)
    scores, classes = 5 * 5 * 4, 5 * 8
    assert explainer.traffic.to_device == images.nbytes
    assert explainer.traffic.to_host == maps + scores + classes
    photo = Image.fromarray(np.zeros((20, 20, 3), np.uint8))
    explainer.explain(photo, [0, 1, 2])
    codes = 3 * 8 + 3 * 8  # targets and their ranks
    assert explainer.traffic.to_device == images.nbytes + images[0].nbytes + codes


def test_outputs_left_on_the_device(cnn: Path) -> None:
    data, plan = instrument(cnn, gradients=True)
    images = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype("f")
    wanted = [ACTIVATIONS, GRADIENTS]
    plain = Session(data, cnn.parent)
    with pytest.raises(InferenceError, match="the session runs on CPUExecutionProvider, not on a"):
        plain.run_on_device({"image": images})
    session = Pretended(data, cnn.parent, "cpu")
    found = session.run_on_device({"image": session.upload(images)}, wanted)
    for name, expected in plain.run({"image": images}, wanted).items():
        assert found[name].shape == expected.shape and found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name].numpy(), expected)
        np.testing.assert_array_equal(np.from_dlpack(found[name]), expected)
        flat = found[name].reshape(expected.size)
        np.testing.assert_array_equal(flat.numpy(), expected.ravel())
        assert not hasattr(found[name], "__cuda_array_interface__"), "it is on the host"
    assert session.traffic.to_device == images.nbytes and session.traffic.to_host == 0


def test_a_tensor_on_the_gpu_shows_its_address() -> None:
    class Value:
        def device_name(self) -> str:
            return "cuda"

        def shape(self) -> list[int]:
            return [2, 3]

        def data_type(self) -> str:
            return "tensor(float16)"

        def data_ptr(self) -> int:
            return 4096

    stream, traffic = Stream(77), session.Traffic()
    tensor = session.DeviceTensor(Value(), stream, traffic)
    assert tensor.__cuda_array_interface__ == {
        "shape": (2, 3),
        "typestr": "<f2",
        "data": (4096, False),
        "strides": None,
        "version": 3,
        "stream": 77,
    }
    assert tensor.reshape(6).__cuda_array_interface__["shape"] == (6,)
    with pytest.raises(ValueError, match=r"\(2, 3\) cannot become \(7,\)"):
        tensor.reshape(7)
    default = session.DeviceTensor(Value(), None, traffic)
    assert default.__cuda_array_interface__["stream"] == 1


def test_the_stream_is_given_to_the_provider() -> None:
    assert session._on_stream(CUDA, None) == CUDA
    assert session._on_stream(CPU, Stream(77)) == CPU
    assert session._on_stream(CUDA, Stream(77)) == (CUDA, {"user_compute_stream": "77"})
    assert session._on_stream((CUDA, {"use_tf32": "0"}), Stream(77))[1] == {
        "use_tf32": "0",
        "user_compute_stream": "77",
    }


def test_a_bad_photograph_among_many(cnn: Path, tmp_path: Path) -> None:
    paths = []
    for i in range(20):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.full((9, 9, 3), i, np.uint8)).save(paths[-1])
    explainer = onnxcam.Explainer(cnn)
    assert [e.source for [e] in explainer.explain_batch(paths)] == [str(p) for p in paths]
    paths[17].write_bytes(b"no image")
    with pytest.raises(onnxcam.errors.ImageError, match="17.png"):
        explainer.explain_batch(paths)


def test_sessions_that_run_by_turns_rest(cnn) -> None:
    """The threads of one that spin would keep those of the other waiting."""
    key = "session.force_spinning_stop"
    many, single = (
        onnxcam.Explainer(cnn, method=method, preprocess="unit", providers="cpu")
        for method in ("rise", "grad-cam")
    )
    assert many._session._session.get_session_options().get_session_config_entry(key) == "1"
    with pytest.raises(RuntimeError, match=key):  # it is not set
        single._session._session.get_session_options().get_session_config_entry(key)
