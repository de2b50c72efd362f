"""Fix how many images a run takes, so that shapes are known that follow from it."""

from __future__ import annotations

from pathlib import Path

import onnx

from onnxcam.errors import ModelError


def fix_batch(proto: onnx.ModelProto, image: str, count: int, path: Path) -> None:
    """Set the first axis of an input, and every length of the same name, in place.

    Args:
        proto: the model.
        image: the name of the image input.
        count: how many images, 1 or more.
        path: the file, for messages.

    Raises:
        ModelError: the model takes another number of images, or ``count`` is none.
    """
    if count < 1:
        raise ModelError(f"batch {count}: give the number of images, 1 or more.")
    [given] = [i for i in proto.graph.input if i.name == image]
    first = given.type.tensor_type.shape.dim[0]
    if first.HasField("dim_value") and first.dim_value > 0:
        if first.dim_value != count:
            raise ModelError(f"{path}: takes {first.dim_value} images at a time, not {count}.")
        return
    name = first.dim_param
    first.dim_value = count
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if name and dim.dim_param == name:
                dim.dim_value = count
