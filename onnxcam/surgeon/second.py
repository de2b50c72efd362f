"""Second derivatives: the gradient of a gradient that stands in the graph.

A gradient is made of operators that have rules themselves, so what made it is differentiated as
the rest of the graph is.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxcam.errors import MethodError
from onnxcam.gradient.add import needed_opset, new_walk, walk_where_it_leads
from onnxcam.gradient.appended import infer_appended
from onnxcam.graph.builder import Builder
from onnxcam.graph.values import dims


def hessian_product(
    b: Builder,
    gradient: ir.Value,
    at: ir.Value,
    along: ir.Value,
    unclipped: Iterable[ir.Node] = (),
) -> ir.Value | None:
    """Append the product of a Hessian and a vector: ``d<g, v>/dx`` with ``v`` held.

    Args:
        b: the builder of the graph.
        gradient: ``g``, ``[T, N, *S]``, of ``T`` numbers at ``x``.
        at: ``x``, ``[N, *S]``.
        along: ``v``, ``[N, *S]``.
        unclipped: quantizers that are read as if they had no range.

    Returns:
        ``[T, N, *S]``; ``None`` where the gradient does not depend on ``x`` but in steps, as behind
        rectifiers and linear layers.

    Raises:
        MethodError: the model's opset is too low for it.
        NoGradientError: an operator that the gradient is made of has no rule, or one refuses it.
    """
    needed = needed_opset(b.graph, gradient, [at])
    if needed > b.opset:
        raise MethodError(
            f"the score's second derivatives need opset {needed}, and the model has {b.opset}. "
            "Export it at that opset; grad-cam takes first derivatives only."
        )
    infer_appended(b, [n for n in b.graph if b.is_own(n)])
    # Row t of T is the product with the gradient of number t alone.
    count = b.op("Gather", b.op("Shape", gradient), b.constant(np.int64(0)), axis=0)
    rows = b.op("Range", b.constant(np.int64(0)), count, b.constant(np.int64(1)))
    own = b.op("OneHot", rows, count, b.constant(np.array([0, 1]), at.dtype), axis=-1)
    axes = b.ints(*range(2, 2 + len(dims(at) or [])))
    seed = b.op("Mul", b.op("Unsqueeze", own, axes), along)
    walk = new_walk(b, unclipped=frozenset(unclipped))
    return walk_where_it_leads(walk, gradient, seed, [at])[0]
