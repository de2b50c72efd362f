"""What tests share: where the real models are, and small models made in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from onnxcam.surgeon.plan import RANKS, TARGETS

DATA = Path(os.environ.get("ONNXCAM_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"


def shared(*parts: str) -> Path:
    """Return a file of the real test data, or skip."""
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no real test data at {DATA} (set ONNXCAM_TEST_DATA)")
    return path


def runtime(
    model: onnx.ModelProto | Path | bytes, optimized: bool = True
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1 if "PYTEST_XDIST_WORKER" in os.environ else 0
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if isinstance(model, onnx.ModelProto):
        model = model.SerializeToString()
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def wanted(codes: object) -> dict[str, np.ndarray]:
    """Feeds for class indices ``[T, N]`` or ``[T, 1]``; ``-r`` is rank ``r`` for the whole row."""
    array = np.array(codes, np.int64)
    ranks = np.maximum(-1 - array.min(axis=1), 0)
    return {TARGETS: np.maximum(array, -1), RANKS: ranks}


def parse(text: str, weights: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """Build a model from ONNX text and its weights by name."""
    model = parser.parse_model(text)
    for name, array in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(model)
    return model


def small_cnn(
    channels: int = 4, classes: int = 5, opset: int = 13, dynamic: bool = True
) -> onnx.ModelProto:
    """Conv, Relu, MaxPool, Conv, Relu, GlobalAveragePool, Gemm, Softmax on [N,3,16,16]."""
    rng = np.random.default_rng(11)
    batch = "N" if dynamic else "1"
    return parse(
        f"""
        <ir_version: 7, opset_import: ["" : {opset}]>
        net (float[{batch},3,16,16] image) => (float[{batch},{classes}] probabilities) {{
            c1 = Conv <pads=[1,1,1,1]> (image, w1, b1)
            r1 = Relu (c1)
            p1 = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r1)
            c2 = Conv <pads=[1,1,1,1]> (p1, w2, b2)
            r2 = Relu (c2)
            pooled = GlobalAveragePool (r2)
            flat = Flatten (pooled)
            logits = Gemm <transB=1> (flat, w3, b3)
            probabilities = Softmax <axis=1> (logits)
        }}
        """,
        {
            "w1": rng.normal(size=(channels, 3, 3, 3)).astype("f") * 0.4,
            "b1": rng.normal(size=channels).astype("f") * 0.1,
            "w2": rng.normal(size=(2 * channels, channels, 3, 3)).astype("f") * 0.3,
            "b2": rng.normal(size=2 * channels).astype("f") * 0.1,
            "w3": rng.normal(size=(classes, 2 * channels)).astype("f"),
            "b3": rng.normal(size=classes).astype("f") * 0.1,
        },
    )


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor fill the user's cache."""
    monkeypatch.setenv("ONNXCAM_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write a model, and files beside it."""

    def write(model: onnx.ModelProto | bytes, name: str = "model.onnx", **beside: str) -> Path:
        path = tmp_path / name
        data = model if isinstance(model, bytes) else model.SerializeToString()
        path.write_bytes(data)
        for suffix, text in beside.items():
            path.with_suffix(f".{suffix}").write_text(text)
        return path

    return write


CARD = """
[preprocess]
divide = 255
mean = 0.5
[labels]
names = ["ant", "bee", "cat", "dog", "cat"]
"""


@pytest.fixture
def cnn(save: Callable[..., Path]) -> Path:
    """A small network with a card of its own."""
    return save(small_cnn(), toml=CARD)
