"""What ``onnxcam doctor`` finds out."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import onnxruntime
import pytest

from onnxcam import health
from onnxcam.kernels import kernels, reference


def test_whatever_is_raised_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("the\ndriver is broken")

    monkeypatch.setattr(health, "find_gpu", broken)
    assert health.describe_gpu() == "failed: RuntimeError: the driver is broken"
    # The runtime seems fine, and turns out not to be.
    monkeypatch.setattr(health, "cuda_problem", lambda runtime: None)
    assert health.check_provider(onnxruntime).startswith("failed: RuntimeMissingError: CUDA")


def test_wrong_kernels_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxcam.kernels.native", exc_type=ImportError)
    assert health.check_kernels("native").startswith("ok: native against the reference")
    wrong = SimpleNamespace(combine=lambda a, g: reference.combine(a, g) + 1)
    assert kernels() is not wrong
    monkeypatch.setattr("onnxcam.kernels.kernels", lambda: wrong)
    assert health.check_kernels("native").startswith("WRONG: native against the reference")
    monkeypatch.setattr("onnxcam.kernels.kernels", lambda: reference)
    assert health.check_kernels("reference") == "ok: the others are measured by it"
    assert health._verdict({"combine": 1e-7, "paint": 9.0}, "cuda").startswith("WRONG")


def test_an_empty_cuda_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("libnvvm is not found")

    monkeypatch.setattr(importlib.util, "find_spec", broken)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert health.check_cuda_kernels("H200") == "failed: RuntimeError: libnvvm is not found"
    monkeypatch.setenv("CUDA_HOME", "")
    assert health.check_cuda_kernels("H200").endswith("'unset CUDA_HOME'")


def test_flavours() -> None:
    def runtime(built: str, *providers: str) -> SimpleNamespace:
        return SimpleNamespace(
            __version__="1.2", cuda_version=built, get_available_providers=lambda: providers
        )

    assert health.describe_runtime(runtime("13.0")) == "1.2, built for CUDA 13.0"
    assert health.describe_runtime(runtime("", health.CUDA)) == "1.2, built for CUDA"
    assert health.describe_runtime(runtime("", "CPUExecutionProvider")) == "1.2, built for the CPU"


@pytest.mark.parametrize("simulated", ["0", "1"])
def test_doctor_warm_never_fails(simulated: str) -> None:
    if simulated == "1" and importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("needs numba-cuda")
    done = subprocess.run(
        [sys.executable, "-m", "onnxcam", "doctor", "--warm", "--json"],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": simulated},
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert "Traceback" not in done.stderr
    if simulated == "1":
        assert report["checks"]["cuda"].startswith("ok: cuda in Numba's simulator")
        assert "paint" in report["warm"] and "nothing is compiled" in report["warm"]
    else:
        assert report["warm"].startswith(("ok", "not installed", "not usable"))
