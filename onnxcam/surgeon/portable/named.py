"""Inputs and outputs of a portable model; the prefix goes where the model has no such name."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.graph.builder import PREFIX, Builder
from onnxcam.surgeon.seeds.classes import add_output, optional_input

TARGET = f"{PREFIX}target"  # input: int64 [N, T] or [1, T], -1 the predicted class or surest row
PHOTO = f"{PREFIX}photo"  # input: uint8 [H, W, 3]
TARGETS = f"{PREFIX}targets"  # output: int64 [N, T]
NUMBERS = f"{PREFIX}scores"  # output: float [N, T]


def told_input(b: Builder, required: bool, images: object) -> ir.Value:
    """Append the input ``[N or 1, T]``; it has a default unless it is required.

    Args:
        b: the graph's builder.
        required: whether there is no default.
        images: how many there are, where that is known.
    """
    shape: list[str | int] = [1 if images == 1 else "target_N", "T"]
    if not required:
        return optional_input(b.graph, TARGET, shape, [[-1]])
    told = ir.Value(name=TARGET, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.INT64))
    b.graph.inputs.append(told)
    return told


def becomes(b: Builder, name: str, value: ir.Value) -> None:
    """Put a computed value in the place of an input."""
    [fed] = [v for v in b.graph.inputs if v.name == name]
    for use in tuple(fed.uses()):
        use.node.replace_input_with(use.idx, value)
    b.graph.inputs.remove(fed)


def add_numbers(b: Builder, value: ir.Value, shape: list[int | str | None]) -> None:
    """Give the graph the explained numbers ``[T, N]`` as an output ``[N, T]`` float32."""
    numbers = b.turned(value)
    if value.dtype != ir.DataType.FLOAT:
        numbers = b.op("Cast", numbers, to=ir.DataType.FLOAT)
    add_output(b, NUMBERS, numbers, ir.DataType.FLOAT, shape)
