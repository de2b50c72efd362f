"""Forward and backward to the input together, over the plain forward pass in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import exports
import numpy as np
import onnx
import onnxruntime
import torch
from measure import side_by_side, table

import onnxcam
from onnxcam.gradient import masks
from onnxcam.gradient.rules import activations, elementwise

AIMS = dict.fromkeys(exports.NAMES, 2.6) | {"resnet50": 2.3, "vgg16": 2.3}
THREADS = 2


def session(model: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def ours(path: Path, image: np.ndarray, seed: np.ndarray, blocked: bool) -> Callable[[], object]:
    model = onnxcam.add_gradients(path, "output", "input", blocked=blocked)
    runtime = session(model.SerializeToString())
    feeds = {"input": image, "seed:output": seed[None]}
    return lambda: runtime.run(["output", "gradient:input"], feeds)


def unmasked(path: Path, image: np.ndarray, seed: np.ndarray) -> Callable[[], object]:
    """The floor: the same without any rectifier's mask, which gives a wrong gradient."""
    places = (masks, activations, elementwise)
    before = masks.passed_inside
    try:
        for module in places:
            module.passed_inside = lambda c, g, low, high: g  # type: ignore[attr-defined]
        return ours(path, image, seed, True)
    finally:
        for module in places:
            module.passed_inside = before  # type: ignore[attr-defined]


def onnx_ad(path: Path, image: np.ndarray, seed: np.ndarray) -> Callable[[], object]:
    """The peer takes no dynamic batch, so the batch is fixed first."""
    from onnx_ad import reverse

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = len(image)
    made = reverse(model, layout="onnx")
    runtime = session(made.SerializeToString())
    feeds = {"input": image, made.graph.input[-1].name: seed[..., None]}
    names = ["output", made.graph.output[-1].name]
    return lambda: runtime.run(names, feeds)


def pytorch(name: str, image: np.ndarray, seed: np.ndarray) -> Callable[[], object]:
    model, x, g = exports.network(name), torch.from_numpy(image), torch.from_numpy(seed)
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    def run() -> object:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(model(leaf), leaf, g)

    return run


def run(rounds: int = 9) -> str:
    """Return the table."""
    torch.set_num_threads(THREADS)
    rng = np.random.default_rng(0)
    rows = []
    for name in exports.NAMES:
        path = exports.export(name)
        image = rng.normal(size=(1, 3, 224, 224)).astype("f")
        seed = rng.normal(size=(1, 1000)).astype("f")
        plain = session(str(path))
        seconds, ratios = side_by_side(
            {
                "plain": lambda p=plain, i=image: p.run(None, {"input": i}),
                "blocked": ours(path, image, seed, True),
                "general": ours(path, image, seed, False),
                "unmasked": unmasked(path, image, seed),
            },
            rounds,
        )
        peers = {"onnx-ad": onnx_ad(path, image, seed), "PyTorch": pytorch(name, image, seed)}
        others, _ = side_by_side(peers, 3)
        rows.append(
            [
                name,
                f"{seconds['plain'] * 1e3:.2f}",
                f"**{ratios['blocked']:.2f}**",
                f"{AIMS[name]:.1f}",
                f"{ratios['unmasked']:.2f}",
                f"{ratios['general']:.2f}",
                *(f"{s / seconds['plain']:.1f}" for s in others.values()),
            ]
        )
        print(*rows[-1], sep="  ", flush=True)
    header = [
        "model", "forward, ms", "blocked", "aim", "unmasked floor", "general", "onnx-ad", "PyTorch"
    ]  # fmt: skip
    return table(header, rows)


if __name__ == "__main__":
    print(run())
