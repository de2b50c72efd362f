"""Check stored weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxcam.graph.values import FLOATS


def non_finite_weights(path: Path, most: int = 3) -> list[str]:
    """Return names of stored weights that hold NaN or infinity, at most ``most`` of them."""
    model = ir.load(path)
    ir.external_data.set_base_dir(model.graph, str(path.absolute().parent))
    found: list[str] = []
    for value in model.graph.initializers.values():
        if value.const_value is None or value.const_value.dtype not in FLOATS:
            continue
        if not np.isfinite(value.const_value.numpy().astype(np.float64)).all():
            found.append(f"'{value.name}'")
            if len(found) == most:
                break
    return found
