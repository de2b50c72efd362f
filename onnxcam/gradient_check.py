"""Run a written gradient once, and hold it against central differences of the model itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcam.errors import InputArrayError, NoImageInputError
from onnxcam.gradient.interface import SEED
from onnxcam.graph.values import dims, tensors
from onnxcam.inputs import cards
from onnxcam.inputs.images import Inputs
from onnxcam.model.describe import model_facts, origin_of, tensor_facts
from onnxcam.model.prepare import Prepared
from onnxcam.model.read import read_model
from onnxcam.runtime.session import Session
from onnxcam.surgeon.find.image import find_image_input

RANDOM = "random"
DIRECTIONS = 3
_STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)  # of the tensor's own size; the best one counts
_LENGTH = 32  # of axes whose length the model leaves open

Array = NDArray[Any]
Exact = NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """What came of one tensor's gradient.

    Attributes:
        tensor: its name.
        largest: the largest absolute value of the gradient.
        error: the largest relative error over the directions: of the gradient's product with a
            direction against central differences, over the product or, where that is small by
            chance, over what a random direction gives on average; infinity where no difference is
            finite.
        problem: what is not finite, ``""`` where all is.
    """

    tensor: str
    largest: float
    error: float
    problem: str = ""


def check_gradient(
    made: onnx.ModelProto, path: Path, of: str, to: Sequence[str], given: str, seed: int = 0
) -> list[Check]:
    """Compare a gradient with the model that it was made of.

    Args:
        made: the model with gradients, as :func:`onnxcam.add_gradients` returns it.
        path: the file of the model without.
        of: the differentiated tensor.
        to: the tensors that it was differentiated with respect to.
        given: ``"random"``, a .npy file of the image input as the model takes it, or a photograph,
            which is prepared as for an explanation. Other inputs are random.
        seed: of what is random: inputs, one cotangent, directions.

    Raises:
        OnnxcamError: the model cannot be run, or the image does not fit.
    """
    rng = np.random.default_rng(seed)
    proto = read_model(path)
    origin = origin_of(proto, path)
    prepared = Prepared(proto, path, keep=frozenset([of, *to]))
    model = prepared.model
    start, *ends = tensors(model.graph, of, *to)
    feeds = {v.name or "": _random(v, rng) for v in model.graph.inputs}
    if given != RANDOM:
        feeds |= _image(model, path, model_facts(model, path.name, origin), given)
    plain = ir.serde.serialize_model(model)
    values = _session(plain, path, [start, *ends]).run(feeds, [of, *to])
    cotangent = rng.normal(size=values[of].shape)
    original = {o.name for o in plain.graph.output}
    outputs = [o.name for o in made.graph.output if o.name not in original][: len(to)]
    entry = next(i for i in reversed(made.graph.input) if i.name.startswith(SEED))
    rows = entry.type.tensor_type.shape.dim[0].dim_value or 1
    row = np.broadcast_to(cotangent, (rows, *cotangent.shape)).astype(values[of].dtype)
    gradients = Session(made.SerializeToString(), path.absolute().parent, "cpu", path.name).run(
        {**feeds, entry.name: row}, outputs
    )
    found = []
    for name, end, output in zip(to, ends, outputs, strict=True):
        g = gradients[output][0].astype(np.float64)
        problem = _not_finite({name: values[name], of: values[of], output: g})
        if problem:
            found.append(Check(name, float("nan"), float("nan"), problem))
            continue
        session = _session(plain, path, [start], end)

        def total(x: Array, name: str = name, session: Session = session) -> float:
            y = session.run({**feeds, name: x}, [of])[of].astype(np.float64)
            return float(np.sum(y * cotangent))

        error = max(_compare(total, values[name], g, d) for d in _directions(g, rng))
        found.append(Check(name, float(np.abs(g).max(initial=0.0)), error))
    return found


def _directions(g: Exact, rng: np.random.Generator) -> list[Exact]:
    """Return random directions of length 1; the last leans towards the gradient."""
    drawn = [rng.normal(size=g.shape) for _ in range(DIRECTIONS)]
    drawn[-1] += g / max(float(np.linalg.norm(g)), 1e-300) * np.sqrt(g.size)
    return [d / max(float(np.linalg.norm(d)), 1e-300) for d in drawn]


def _compare(
    total: Callable[[Array], float], x: Array, g: NDArray[np.float64], d: NDArray[np.float64]
) -> float:
    """Return the relative error along one direction, at the step where it is least."""
    exact = float(np.sum(g * d))
    usual = float(np.linalg.norm(g)) / np.sqrt(max(g.size, 1))
    size = max(float(np.linalg.norm(x.astype(np.float64))), 1e-3)
    best = float("inf")
    for step in _STEPS:
        ends = [(x + sign * step * size * d).astype(x.dtype) for sign in (1, -1)]
        moved = float(np.sum((ends[0].astype(np.float64) - ends[1]) * d))  # after rounding
        slope = (total(ends[0]) - total(ends[1])) / (moved or 1e-300)
        if math.isfinite(slope):
            best = min(best, abs(slope - exact) / max(abs(exact), abs(slope), usual, 1e-300))
    return best


def _not_finite(arrays: Mapping[str, Array]) -> str:
    for name, array in arrays.items():
        wrong = {"NaN": np.isnan(array).sum(), "infinity": np.isinf(array).sum()}
        for what, count in wrong.items():
            if count:
                return f"'{name}' holds {what} in {count:,} of {array.size:,} places"
    return ""


def _session(
    proto: onnx.ModelProto, path: Path, wanted: Sequence[ir.Value], fed: ir.Value | None = None
) -> Session:
    """Return a session that gives tensors of a model; one tensor may be fed to it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph = copy.graph
    if fed is not None and all(i.name != fed.name for i in graph.input):
        for node in graph.node:
            node.output[:] = [f"{o}:computed" if o == fed.name else o for o in node.output]
        kept = [v for v in graph.value_info if v.name != fed.name]
        del graph.value_info[:]
        graph.value_info.extend(kept)
        graph.input.append(ir.serde.serialize_value(fed))
    del graph.output[:]
    graph.output.extend(ir.serde.serialize_value(v) for v in dict.fromkeys(wanted))
    return Session(copy.SerializeToString(), path.absolute().parent, "cpu", path.name)


def _random(value: ir.Value, rng: np.random.Generator) -> Array:
    """Return an input: normal numbers, integers 0 and 1; a batch of one."""
    facts = tensor_facts(value)
    shape = [
        d if isinstance(d, int) else 1 if axis == 0 else _LENGTH
        for axis, d in enumerate(dims(value) or [])
    ]
    dtype = np.dtype(facts.dtype)
    drawn = rng.integers(0, 2, shape) if dtype.kind in "iub" else rng.normal(size=shape)
    return np.asarray(drawn).astype(dtype)


def _image(model: ir.Model, path: Path, facts: Any, given: str) -> dict[str, Array]:
    takes = find_image_input(model.graph, path.name)
    if Path(given).suffix.lower() == ".npy":
        try:
            array = np.load(given, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputArrayError(f"{given}: cannot be read as a .npy file of NumPy.") from error
        return {takes.name: Inputs(takes, path).check(array)}
    at_hand = cards.all_cards(cards.given_cards("auto", path, labels=False), facts)
    way, _, _ = cards.find_preprocess(at_hand, path, takes)
    if way is None:
        raise NoImageInputError(f"{path}: takes no photograph. Give a .npy file, or 'random'.")
    return {takes.name: Inputs(takes, path).prepare(given, way)[0]}
