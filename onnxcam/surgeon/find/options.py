"""Ways out of a refusal, as options of the command line that a shell takes."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.errors import quoted
from onnxcam.graph.values import dims


def score_option(value: ir.Value) -> str:
    """Return the option that takes a tensor for the scores."""
    return f"--score {quoted(value.name or '')}"


def element_option(value: ir.Value, images_first: bool = True) -> str:
    """Return the option that explains a tensor's first number."""
    zeros = ",".join("0" for _ in (dims(value) or [])[int(images_first) :])
    return f"-t {quoted(f'{value.name}[{zeros}]')}"
