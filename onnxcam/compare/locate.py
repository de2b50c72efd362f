"""Where two models begin to diverge: their tensors, layer by layer.

Of each tensor that both compute, the signal-to-noise ratio ``10 log10(sum r^2 / sum (r - c)^2)`` in
dB and the cosine of the angle between both; ONNX Runtime's ``qdq_loss_debug`` compares tensors
likewise. A node is a source of the error where it adds at least as much as it is given: its ratio
is 3 dB or more below the worst of what it reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxcam.errors import CompareError
from onnxcam.model.read import read_model
from onnxcam.runtime.session import Session

LIMIT_DB = 20.0  # below it more than a tenth of a tensor's size is error
DROP_DB = 3.0
MOST = 8  # nodes on the list
AHEAD = 24  # tensors that are fetched in one run
_AFTER = ("_DequantizeLinear_Output", "", "_quantized", "_QuantizeLinear_Input")


@dataclass(frozen=True)
class Step:
    """One node's output in both models.

    Attributes:
        node: the node of the reference.
        operator: its operator.
        tensor: its output.
        twin: the tensor of the candidate that it is compared with.
        sqnr: signal-to-noise ratio in dB, at most 200.
        cosine: of the angle between both, -1 to 1.
        drop: by how many dB the ratio lies below the worst of what the node reads.
    """

    node: str
    operator: str
    tensor: str
    twin: str
    sqnr: float
    cosine: float
    drop: float


@dataclass(frozen=True)
class Located:
    """Where two models diverge.

    Attributes:
        steps: in the graph's order; none where no tensors fit.
        first: the first step whose ratio is below the limit; ``None`` where there is none.
        exclude: nodes that ONNX Runtime's quantizer should leave alone, the worst first.
    """

    steps: tuple[Step, ...]
    first: Step | None
    exclude: tuple[str, ...]

    def to_python(self) -> str:
        """Return the list as ``quantize_static`` takes it."""
        return f"nodes_to_exclude = {json.dumps(list(self.exclude), ensure_ascii=False)}"


def locate(
    reference: Path, candidate: Path, feeds: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> Located:
    """Walk the layers of two models.

    Args:
        reference: the reference's file.
        candidate: the candidate's.
        feeds: of each run what both are fed; a few images suffice.

    Raises:
        CompareError: the models have no tensors that go together.
        ModelError: a file cannot be read.
        InferenceError: the runtime fails.
    """
    first, second = read_model(reference), read_model(candidate)
    pairs = _pairs(first, second)
    if not pairs:
        raise CompareError(
            f"{reference.name} and {candidate.name} have no tensors that go together by name or "
            "shape, so there are no layers to walk. The measures of their maps stand without "
            "--locate."
        )
    own = _Fetch(first, reference, [p[0] for p in pairs])
    other = _Fetch(second, candidate, [p[1] for p in pairs])
    sums = np.zeros((len(pairs), 4))
    for start in range(0, len(pairs), AHEAD):
        part = pairs[start : start + AHEAD]
        for fed, fed_too in feeds:
            a = own.fetch([p[0] for p in part], fed)
            b = other.fetch([p[1] for p in part], fed_too)
            for place, (x, y) in enumerate(zip(a, b, strict=True)):
                sums[start + place] += _sums(x, y)
    fit = ~np.isnan(sums[:, 3])
    return _judged(first, [p for p, good in zip(pairs, fit, strict=True) if good], sums[fit])


def _judged(
    model: onnx.ModelProto, pairs: Sequence[tuple[str, str]], sums: NDArray[np.float64]
) -> Located:
    """Return the steps, and which nodes are the sources of the error."""
    ratios: dict[str, float] = {}
    twins = dict(pairs)
    numbers = dict(zip((p[0] for p in pairs), sums, strict=True))
    reach: dict[str, float] = {}  # the worst ratio of what a tensor is made of
    steps = []
    for node in model.graph.node:
        arrives = min((reach.get(name, _CLEAN) for name in node.input), default=_CLEAN)
        for tensor in node.output:
            if tensor not in twins:
                reach[tensor] = arrives
                continue
            signal, noise, product, size = numbers[tensor]
            ratio = _ratio(signal, noise)
            cosine = (
                product / np.sqrt(signal * size)
                if signal > 0 and size > 0
                else float(signal == size)
            )
            reach[tensor] = ratios[tensor] = ratio
            drop = max(0.0, min(arrives, _QUIET) - ratio)
            step = Step(node.name, node.op_type, tensor, twins[tensor], ratio, float(cosine), drop)
            steps.append(step)
    first = next((s for s in steps if s.sqnr < LIMIT_DB), None)
    sources = [s for s in steps if s.node and s.sqnr < LIMIT_DB + DROP_DB and s.drop >= DROP_DB]
    worst = sorted(sources, key=lambda s: (-s.drop, s.sqnr))[:MOST]
    return Located(tuple(steps), first, tuple(_excluded(model, twins, worst)))


def _excluded(model: onnx.ModelProto, twins: Mapping[str, str], worst: Sequence[Step]) -> list[str]:
    """Return the nodes, with those before that have no tensor to compare, and those behind.

    What reads an output would otherwise quantize it.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, None] = {}
    for step in worst:
        around = [makers[step.tensor]]
        for node in around:
            before = [makers[n] for n in node.input if n in makers and n not in twins]
            around += [n for n in before if n not in around]
        around += [n for n in model.graph.node if step.tensor in n.input]
        found |= {n.name: None for n in around if n.name and n.op_type != "Constant"}
    return list(found)


_CLEAN, _QUIET = 200.0, 40.0  # dB: nothing differs; as good as nothing differs


def _ratio(signal: float, noise: float) -> float:
    if noise <= 0:
        return _CLEAN
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / noise), -_CLEAN, _CLEAN))


def _sums(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Return signal, noise, product and the other's size; of tensors that do not fit, NaN."""
    if x.shape != y.shape and x.ndim == y.ndim == 4:
        y = (
            np.moveaxis(y, -1, 1)
            if np.moveaxis(y, -1, 1).shape == x.shape
            else np.moveaxis(y, 1, -1)
        )
    if x.size != y.size:
        return np.full(4, np.nan)
    a, b = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    a, b = np.nan_to_num(a), np.nan_to_num(b)
    return np.array([a @ a, (a - b) @ (a - b), a @ b, b @ b])


def _pairs(first: onnx.ModelProto, second: onnx.ModelProto) -> list[tuple[str, str]]:
    """Return tensors that go together.

    1. By name, as ONNX Runtime's quantizer names them. Where it merged a rectifier into the layer
       before, the rectifier's output goes with the layer's.
    2. Where hardly any names are the same, by shape: the longest runs of equal shapes.
    """
    theirs = {name for node in second.graph.node for name in node.output if name}
    readable = {name for name in theirs if not name.endswith("_quantized")} | _scales(
        second, theirs
    ).keys()
    nodes = [n for n in first.graph.node if n.op_type not in ("Constant", "Shape", "Identity")]
    outputs = [name for node in nodes for name in node.output if name]
    merged = {
        n.input[0]: n.output[0]
        for n in nodes
        if n.op_type in ("Relu", "Clip") and _twin(n.output[0], theirs) is None
    }
    named = [
        (merged.get(name, name), twin)
        for name in outputs
        if (twin := _twin(name, theirs)) is not None and twin in readable
    ]
    if len(named) >= max(2, len(outputs) // 4):
        return named
    shapes, others = _shapes(first), _shapes(second)
    blocks = SequenceMatcher(None, [s for _, s in shapes], [s for _, s in others], False)
    return [
        (shapes[block.a + i][0], others[block.b + i][0])
        for block in blocks.get_matching_blocks()
        for i in range(block.size)
    ]


def _twin(name: str, theirs: set[str]) -> str | None:
    """Return the candidate's tensor of a name, the quantized one where it is."""
    return next((name + end for end in _AFTER if name + end in theirs), None)


def _shapes(model: onnx.ModelProto) -> list[tuple[str, tuple[int, ...]]]:
    """Return the outputs of layers with weights, and their shapes without the first axis."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:  # a model too large for it, or with operators that it does not know
        return []
    known = {v.name: v for v in [*inferred.graph.value_info, *inferred.graph.output]}
    found = []
    for node in model.graph.node:
        value = known.get(node.output[0]) if node.output else None
        if node.op_type not in ("Conv", "Gemm", "MatMul", "ConvTranspose") or value is None:
            continue
        lengths = [d.dim_value for d in value.type.tensor_type.shape.dim][1:]
        if lengths and all(lengths):
            found.append((node.output[0], tuple(sorted(lengths))))
    return found


class _Fetch:
    """Runs a model and gives tensors of it, a few at a time, so that memory stays bounded."""

    def __init__(self, model: onnx.ModelProto, path: Path, tensors: Iterable[str]) -> None:
        self._model, self._path = model, path
        self._scales = _scales(model, tensors)

    def fetch(self, tensors: Sequence[str], feeds: Mapping[str, Any]) -> list[NDArray[Any]]:
        """Return tensors, quantized ones as the numbers that they stand for."""
        session = self._session(tuple(tensors))
        found = session.run(feeds, list(dict.fromkeys(tensors)))
        return [self._numbers(name, found[name]) for name in tensors]

    def _session(self, tensors: tuple[str, ...]) -> Session:
        kept = getattr(self, "_kept", None)
        if kept is not None and kept[0] == tensors:
            return kept[1]  # type: ignore[no-any-return]
        proto = onnx.ModelProto()
        proto.CopyFrom(self._model)
        del proto.graph.output[:]
        proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in dict.fromkeys(tensors))
        session = Session(proto.SerializeToString(), self._path.parent, "cpu", self._path.name)
        self._kept = tensors, session
        return session

    def _numbers(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        if name not in self._scales or array.dtype.kind == "f":
            return array
        scale, zero = self._scales[name]
        return (array.astype(np.float64) - zero) * scale


def _scales(model: onnx.ModelProto, tensors: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return scale and zero point of tensors that ONNX Runtime's quantizer named."""
    weights = {t.name: t for t in model.graph.initializer}
    found = {}
    for name in tensors:
        stem = name.removesuffix("_quantized")
        pair = [weights.get(f"{stem}_scale"), weights.get(f"{stem}_zero_point")]
        if stem != name and pair[0] is not None and pair[1] is not None:
            scale, zero = (onnx.numpy_helper.to_array(t).reshape(-1) for t in pair if t is not None)
            found[name] = float(scale[0]), float(zero[0])
    return found
