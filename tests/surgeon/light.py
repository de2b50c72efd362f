"""The ``onnx`` package's light networks with weights that make a difference.

As shipped every weight is 0.02, so all channels are equal. Weights are drawn anew from a seed,
convolutions scaled by their fan-in, and batch-norm statistics taken from data, so that signals
neither vanish nor explode.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ..conftest import LIGHT, runtime

NAMES = [
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
]
LARGE = ("vgg19", "zfnet512", "bvlc_alexnet")  # chains of layers, of 550, 350 and 240 MB


def skip_large(name: str) -> None:
    """Leave the largest networks to the sweep that takes long."""
    if name in LARGE and "ONNXCAM_TEST_ALL" not in os.environ:
        pytest.skip("takes minutes (set ONNXCAM_TEST_ALL)")


def light(name: str) -> Path:
    return LIGHT / f"light_{name}.onnx"


def seeded(name: str, seed: int = 5) -> onnx.ModelProto:
    """Return a light network with seeded weights."""
    model = onnx.load(light(name))
    rng = np.random.default_rng(seed)
    graph = model.graph
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    generated = {n.output[0]: shapes[n.input[0]] for n in graph.node if _fills(n)}
    kept = [n for n in graph.node if n.output[0] not in generated]
    del graph.node[:]
    graph.node.extend(kept)
    roles = _roles(kept)
    weights = {name: _draw(rng, shape, roles.get(name)) for name, shape in generated.items()}
    small = {t.name: np.array(numpy_helper.to_array(t)) for t in graph.initializer}
    for key, array in small.items():
        if array.dtype == np.float32:
            weights[key] = _draw(rng, np.array(array.shape), roles.get(key))
    old = [t for t in graph.initializer if t.name not in weights]
    del graph.initializer[:]
    graph.initializer.extend(old)
    graph.initializer.extend(numpy_helper.from_array(a, k) for k, a in weights.items())
    model.ir_version = 4
    names = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in names]
    del graph.input[:]
    graph.input.extend(inputs)
    _calibrate(model, rng)
    return model


def _fills(node: onnx.NodeProto) -> bool:
    return node.op_type == "ConstantOfShape"


def _roles(nodes: list[onnx.NodeProto]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for node in nodes:
        parts = {
            "Conv": ("", "weight", "bias"),
            "Gemm": ("", "weight", "bias"),
            "BatchNormalization": ("", "scale", "bias", "mean", "var"),
        }.get(node.op_type, ())
        for name, role in zip(node.input, parts, strict=False):
            roles.setdefault(name, role)
        if node.op_type == "Unsqueeze":  # Caffe's Scale layer as Mul and Add
            roles.setdefault(node.input[0], "scale")
        if node.op_type == "Reshape":
            roles.setdefault(node.input[0], "weight")
    return roles


def _draw(rng: np.random.Generator, shape: np.ndarray, role: str | None) -> np.ndarray:
    size = tuple(int(d) for d in shape)
    if role == "weight":
        fan_in = max(int(np.prod(size[1:])), 1)
        return (rng.normal(size=size) * np.sqrt(2.0 / fan_in)).astype(np.float32)
    if role in ("scale", "var"):
        return rng.uniform(0.7, 1.3, size=size).astype(np.float32)
    return (rng.normal(size=size) * 0.05).astype(np.float32)


def _calibrate(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Set batch-norm means and variances from one random image, layer after layer."""
    norms = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    stored = {t.name: t for t in model.graph.initializer}
    image = model.graph.input[0]
    shape = [d.dim_value or 1 for d in image.type.tensor_type.shape.dim]
    feed = {image.name: rng.normal(size=shape).astype(np.float32)}
    for start in range(0, len(norms), 12):  # a few at a time: earlier ones change later ones
        group = norms[start : start + 12]
        probe = onnx.ModelProto()
        probe.CopyFrom(model)
        probe.graph.output.extend(
            helper.make_tensor_value_info(n.input[0], TensorProto.FLOAT, None) for n in group
        )
        values = runtime(probe).run([n.input[0] for n in group], feed)
        for node, value in zip(group, values, strict=True):
            mean, var = value.mean(axis=(0, 2, 3)), value.var(axis=(0, 2, 3)) + 1e-3
            for name, array in ((node.input[3], mean), (node.input[4], var)):
                stored[name].CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
