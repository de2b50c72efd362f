"""Find scores of every pixel, and embeddings."""

from __future__ import annotations

import onnx_ir as ir

from onnxcam.errors import ScoreError
from onnxcam.graph.operators import Trait, has
from onnxcam.graph.values import dims, is_float
from onnxcam.surgeon.find.endings import behind
from onnxcam.surgeon.find.heads import has_images_first, has_unit_length, of_images
from onnxcam.surgeon.find.score import Batch, named

_MOST = 4  # an output of fewer numbers is rather coordinates than an embedding


def find_dense(graph: ir.Graph, batch: Batch, requested: str = "auto") -> ir.Value:
    """Return the scores of every pixel, ``[N, C, *S]``, before Softmax, Sigmoid or ArgMax.

    Raises:
        ScoreError: no output has them, or they have their channels last.
    """
    for output in _outputs(graph, requested):
        value = _before(output)
        shape = dims(value) or []
        if len(shape) not in (4, 5) or not is_float(value) or not of_images(value, batch):
            continue
        *space, last = shape[1:]
        known = [d for d in space if isinstance(d, int)]
        if isinstance(last, int) and known and all(last < d // 4 for d in known):
            raise ScoreError(
                f"the scores of pixels '{value.name}' {shape} have their channels last; name the "
                "tensor before that with --score."
            )
        return value
    raise ScoreError(
        "no output has scores of pixels, [N, C, H, W], or of voxels, [N, C, D, H, W]. Name their "
        "tensor with --score, or choose another kind of target."
    )


def find_embedding(graph: ir.Graph, batch: Batch, requested: str = "auto") -> ir.Value:
    """Return the embedding: an output of length 1 if there is one, else the first of many numbers.

    Raises:
        ScoreError: there is none.
    """
    flat = [
        o
        for o in _outputs(graph, requested)
        if is_float(o) and has_images_first(o, batch) and len(dims(o) or []) == 2
    ]
    found = next((o for o in flat if has_unit_length(o)), None)
    many = (o for o in flat if not isinstance(n := (dims(o) or [])[1], int) or n > _MOST)
    found = found or next(many, None)
    if found is None:
        raise ScoreError("no output is an embedding, [N, D]. Name its tensor with --score.")
    return found


def _outputs(graph: ir.Graph, requested: str) -> list[ir.Value]:
    return list(graph.outputs) if requested == "auto" else [named(graph, requested)]


def _before(value: ir.Value) -> ir.Value:
    """Return the scores before what squashes them or takes the best."""

    def passed(node: ir.Node) -> bool:
        squashes = has(node, Trait.SQUASHES | Trait.PASSES) or node.op_type == "ArgMax"
        return squashes or (has(node, Trait.RESHAPES) and not is_float(node.outputs[0]))

    return behind(value, passed)
