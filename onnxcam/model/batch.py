"""Fix how many images a run takes, so that shapes are known that follow from it."""

from __future__ import annotations

from pathlib import Path

import onnx

from onnxcam.errors import ModelError
from onnxcam.model.fold import fold_constants
from onnxcam.model.shapes import known_lengths
from onnxcam.model.skeleton import skeleton


def fix_batch(proto: onnx.ModelProto, image: str, count: int, path: Path) -> None:
    """Set the first axis of an input, and every length of the same name, in place.

    What is computed of lengths that are known then is folded.

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
    known = first.dim_value if first.HasField("dim_value") else 0
    if known > 0 and known != count:
        raise ModelError(f"{path}: takes {known} images at a time, not {count}.")
    name = first.dim_param
    first.dim_value = count
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if name and dim.dim_param == name:
                dim.dim_value = count
    before = 0
    while len(proto.graph.node) != before:
        before = len(proto.graph.node)
        fold_constants(proto, known_lengths(skeleton(proto)[0], path))
