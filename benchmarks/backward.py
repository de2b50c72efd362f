"""Forward and backward to the input together, over the plain forward pass in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import exports
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from measure import side_by_side, table

import onnxcam
from onnxcam.gradient.backward import Where
from onnxcam.gradient.call import Call
from onnxcam.gradient.kinds import PerOperand, Rule
from onnxcam.gradient.overrides.base import Override

AIMS = dict.fromkeys(exports.NAMES, 2.6) | {"resnet50": 2.3, "vgg16": 2.3}


def session(model: bytes | str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def ours(
    path: Path,
    image: np.ndarray,
    seed: np.ndarray,
    threads: int,
    blocked: bool = True,
    policy: str | Override = "standard",
) -> Callable[[], object]:
    model = onnxcam.add_gradients(path, "output", "input", blocked=blocked, policy=policy)
    runtime = session(model.SerializeToString(), threads)
    feeds = {"input": image, "seed:output": seed[None]}
    return lambda: runtime.run(["output", "gradient:input"], feeds)


@dataclass(frozen=True)
class Unmasked:
    """Leave out the masks of rectifiers, which gives a wrong gradient."""

    name: str = "unmasked"

    def rule_for(self, node: ir.Node, where: Where, beneath: Rule) -> Rule | None:
        if node.op_type not in ("Relu", "Clip") or not isinstance(beneath, PerOperand):
            return None
        return replace(beneath, makers=(lambda c, g: g,), gates=False)


@dataclass(frozen=True)
class Bare(Unmasked):
    """Leave out the derivative of SiLU too, and replace that of MaxPool by repetition."""

    name: str = "bare"

    def rule_for(self, node: ir.Node, where: Where, beneath: Rule) -> Rule | None:
        if not isinstance(beneath, PerOperand):
            return None
        if node.op_type == "Mul":
            makers = tuple(partial(_factor, beneath, i) for i in range(2))
            return replace(beneath, makers=makers)
        if node.op_type == "Sigmoid":
            return replace(beneath, makers=(lambda c, g: None,))
        if node.op_type == "MaxPool":
            return replace(beneath, makers=(_repeated,))
        return super().rule_for(node, where, beneath)


def _factor(beneath: PerOperand, index: int, c: Call, g: ir.Value) -> ir.Value | None:
    gate = c.x(1 - index).producer()
    alike = c.dims(c.x(0)) == c.dims(c.x(1))
    if alike and gate is not None and gate.op_type == "Sigmoid":
        return g
    maker = beneath.makers[index]
    return None if maker is None else maker(c, g)


def _repeated(c: Call, g: ir.Value) -> ir.Value:
    x = c.x(0)
    length, count, channels = (c.static(*at) or 0 for at in ((x, 2), (c.y, 2), (x, 1)))
    strides = c.attribute("strides", [1, 1])
    dx = c.builder.repeat(c.merge_t(g, c.y), strides)
    rest = length - strides[0] * count
    if rest:
        one = c.builder.constant(np.ones([channels, 1, 1, 1]), c.kind)
        dx = c.op("Conv", dx, one, group=channels, pads=[0, 0, rest, rest])
    return c.split_t(dx, x, merged=True)


def onnx_ad(path: Path, image: np.ndarray, seed: np.ndarray, threads: int) -> Callable[[], object]:
    """The peer takes no dynamic batch, so the batch is fixed first."""
    from onnx_ad import reverse

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = len(image)
    made = reverse(model, layout="onnx")
    runtime = session(made.SerializeToString(), threads)
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


def measured(name: str, threads: int, rounds: int) -> list[str]:
    """Return the table's row."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    path = exports.export(name)
    image = rng.normal(size=(1, 3, 224, 224)).astype("f")
    seed = rng.normal(size=(1, 1000)).astype("f")
    given = (path, image, seed, threads)
    plain = session(str(path), threads)
    runs = {
        "plain": lambda: plain.run(None, {"input": image}),
        "blocked": ours(*given),
        "general": ours(*given, blocked=False),
    }
    for floor in (Unmasked(), Bare()):
        runs[floor.name] = ours(*given, policy=floor)
    seconds, ratios = side_by_side(runs, rounds)
    peers = {"onnx-ad": onnx_ad(*given), "PyTorch": pytorch(name, image, seed)}
    others, _ = side_by_side(peers, 3)
    return [
        name,
        str(threads),
        f"{seconds['plain'] * 1e3:.2f}",
        f"**{ratios['blocked']:.2f}**",
        f"{AIMS[name]:.1f}",
        *(f"{ratios[form]:.2f}" for form in ("unmasked", "bare", "general")),
        *(f"{s / seconds['plain']:.1f}" for s in others.values()),
    ]


def run(rounds: int = 7) -> str:
    """Return the table."""
    rows = []
    for threads in (2, 1):
        for name in exports.NAMES:
            rows.append(measured(name, threads, rounds))
            print(*rows[-1], sep="  ", flush=True)
    header = ["model", "threads", "forward, ms", "blocked", "aim"]
    return table([*header, "unmasked", "bare", "general", "onnx-ad", "PyTorch"], rows)


if __name__ == "__main__":
    print(run())
