"""Run a model and its written gradient once, on a photograph, an array or random numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcam.errors import InputArrayError, MethodError, NoImageInputError
from onnxcam.gradient.interface import SEED
from onnxcam.graph.values import dims, tensors
from onnxcam.inputs import cards
from onnxcam.inputs.images import Inputs, Item
from onnxcam.model.describe import model_facts, origin_of, tensor_facts
from onnxcam.model.facts import ModelFacts
from onnxcam.model.prepare import Prepared
from onnxcam.model.read import read_model
from onnxcam.runtime.session import Session
from onnxcam.surgeon.find.image import find_image_input, first_floating
from onnxcam.surgeon.plan import ImageInput

RANDOM = "random"
_LENGTH = 32  # of axes whose length the model leaves open

Array = NDArray[Any]


class Image(NamedTuple):
    """The image that is fed.

    Attributes:
        takes: the model's image input.
        tensor: what is fed to it, a batch of one.
        item: what is kept of the image.
        varied: name of the input, or of the first floating tensor where that takes integers.
        bgr: whether the tensor's channels are blue, green, red.
    """

    takes: ImageInput
    tensor: Array
    item: Item
    varied: str
    bgr: bool = False


@dataclass(frozen=True)
class Trial:
    """One run of a model without gradients.

    Attributes:
        path: its file.
        plain: the model as it was run.
        start: the differentiated tensor.
        ends: the tensors that it is differentiated with respect to.
        feeds: its inputs, a batch of one.
        values: what these tensors hold, by name.
        image: the image, ``None`` where all inputs are random.
    """

    path: Path
    plain: onnx.ModelProto
    start: ir.Value
    ends: list[ir.Value]
    feeds: dict[str, Array]
    values: dict[str, Array]
    image: Image | None


def try_once(path: Path, of: str, to: Sequence[str], given: str, rng: np.random.Generator) -> Trial:
    """Run a model once.

    Args:
        path: its file.
        of: a tensor that is read.
        to: more of them.
        given: ``"random"``, a .npy file of the image input as the model takes it, or a photograph,
            which is prepared as for an explanation. Other inputs are random.
        rng: what random inputs are drawn from.

    Raises:
        OnnxcamError: the model cannot be run, or the image does not fit.
    """
    proto = read_model(path)
    origin = origin_of(proto, path)
    model = Prepared(proto, path, keep=frozenset([of, *to])).model
    start, *ends = tensors(model.graph, of, *to)
    feeds = {v.name or "": _random(v, rng) for v in model.graph.inputs}
    image = None
    if given != RANDOM:
        image = _image(model, path, model_facts(model, path.name, origin), given)
        feeds[image.takes.name] = image.tensor
    plain = ir.serde.serialize_model(model)
    values = session_of(plain, path, [start, *ends]).run(feeds, [of, *to])
    return Trial(path, plain, start, ends, feeds, values, image)


def run_gradient(made: onnx.ModelProto, trial: Trial, cotangent: Array) -> dict[str, Array]:
    """Return the gradients by the names of their outputs, without the axis of cotangents.

    Args:
        made: the model with gradients, as :func:`onnxcam.add_gradients` returns it.
        trial: a run of the model without.
        cotangent: in the shape of the differentiated tensor.

    Raises:
        InferenceError: the model cannot be run.
    """
    original = {o.name for o in trial.plain.graph.output}
    outputs = [o.name for o in made.graph.output if o.name not in original][: len(trial.ends)]
    entry = next(i for i in reversed(made.graph.input) if i.name.startswith(SEED))
    rows = entry.type.tensor_type.shape.dim[0].dim_value or 1
    dtype = trial.values[trial.start.name or ""].dtype
    row = np.broadcast_to(cotangent, (rows, *cotangent.shape)).astype(dtype)
    session = Session(
        made.SerializeToString(), trial.path.absolute().parent, "cpu", trial.path.name
    )
    found = session.run({**trial.feeds, entry.name: row}, outputs)
    return {name: found[name][0] for name in outputs}


def not_finite(arrays: Mapping[str, Array]) -> str:
    """Say what holds NaN or infinity, and in how many places; ``""`` where nothing does."""
    for name, array in arrays.items():
        wrong = {"NaN": np.isnan(array).sum(), "infinity": np.isinf(array).sum()}
        for what, count in wrong.items():
            if count:
                return f"'{name}' holds {what} in {count:,} of {array.size:,} places"
    return ""


def session_of(
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


def _image(model: ir.Model, path: Path, facts: ModelFacts, given: str) -> Image:
    takes = find_image_input(model.graph, path.name)
    varied = takes.name
    with suppress(MethodError):  # integers that are not converted: other tensors may still do
        varied = first_floating(tensors(model.graph, takes.name)[0]).name or varied
    if Path(given).suffix.lower() == ".npy":
        try:
            array = np.load(given, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputArrayError(f"{given}: cannot be read as a .npy file of NumPy.") from error
        tensor = Inputs(takes, path).check(array)
        return Image(takes, tensor, Inputs(takes, path).ready(tensor), varied)
    at_hand = cards.all_cards(cards.given_cards("auto", path, labels=False), facts)
    way, _, _ = cards.find_preprocess(at_hand, path, takes)
    if way is None:
        raise NoImageInputError(f"{path}: takes no photograph. Give a .npy file, or 'random'.")
    tensor, item = Inputs(takes, path).prepare(given, way)
    return Image(takes, tensor, item, varied, way.color == "BGR")
