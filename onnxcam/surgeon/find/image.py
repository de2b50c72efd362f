"""Find the input that takes the image, and its layout."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.errors import MethodError, NoImageInputError
from onnxcam.graph.values import dims, is_float
from onnxcam.model.describe import tensor_facts
from onnxcam.surgeon.find.spaces import as_bare, as_volume, laid_out
from onnxcam.surgeon.plan import ImageInput

_CHANNELS = (1, 3, 4)
_CONVERTING = ("Cast", "DequantizeLinear", "Identity")
_DTYPES = {
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.UINT8,
    ir.DataType.INT8,
}


def find_image_input(graph: ir.Graph, file: str) -> ImageInput:
    """Return the first input shaped like images, else one like volumes, or like signals.

    Raises:
        NoImageInputError: every input is of another kind, as in a text model.
    """
    for as_kind in (_as_image, _as_bands, as_volume, as_bare):
        for value in graph.inputs:
            found = as_kind(value) if value.dtype in _DTYPES else None
            if found is not None:
                return found
    shown = "; ".join(str(tensor_facts(v)) for v in graph.inputs) or "none"
    raise NoImageInputError(
        f"{file}: no input takes an image. Inputs: {shown}. An image input has four axes, "
        "[N,C,H,W] or [N,H,W,C]; signals are [N,C,W] before a convolution, volumes [N,C,D,H,W]."
    )


def first_floating(image: ir.Value) -> ir.Value:
    """Return the first floating-point tensor that an integer image is converted to.

    The image itself, if it is floating point.

    Raises:
        MethodError: there is none, or more than one.
    """
    if is_float(image):
        return image
    converted = [n.outputs[0] for n in image.consumers() if n.op_type in _CONVERTING]
    if len(converted) == 1 and len(list(image.consumers())) == 1:
        return first_floating(converted[0])
    raise MethodError(
        f"the image input '{image.name}' takes integers, which are not converted to one "
        "floating-point tensor, so there is nothing to vary or differentiate. Choose a method of "
        "a layer ('onnxcam methods' lists them)."
    )


def _as_image(value: ir.Value) -> ImageInput | None:
    shape = dims(value)
    if shape is None or len(shape) != 4:
        return None
    first, last = shape[1], shape[3]
    if first in _CHANNELS:
        layout = "NCHW"
    elif last in _CHANNELS:
        layout = "NHWC"
    elif isinstance(first, int) or any(isinstance(d, int) for d in shape[2:]):
        return None  # some other kind of maps
    else:
        layout = "NHWC" if _starts_with_transpose(value) else "NCHW"
    return laid_out(value, layout)


def _as_bands(value: ir.Value) -> ImageInput | None:
    """Return an image of any other number of channels, fewer than its rows and columns."""
    shape = dims(value)
    if shape is None or len(shape) != 4:
        return None

    def fewest(axis: int) -> bool:
        channels, space = shape[axis], [shape[i] for i in (1, 2, 3) if i != axis]
        return isinstance(channels, int) and all(channels < d for d in space if isinstance(d, int))

    first = fewest(1)
    if first == fewest(3):
        return None
    return laid_out(value, "NCHW" if first else "NHWC")


def _starts_with_transpose(value: ir.Value) -> bool:
    return any(
        node.op_type == "Transpose" and node.attributes.get_ints("perm") == [0, 3, 1, 2]
        for node in value.consumers()
    )
