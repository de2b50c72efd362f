"""Check stored weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxcam.graph.values import FLOATS
from onnxcam.model.read import read_model


def non_finite_weights(path: Path, most: int = 3) -> list[str]:
    """Return names of stored weights that hold NaN or infinity, at most ``most`` of them."""
    folder = str(path.absolute().parent)
    found: list[str] = []
    for stored in read_model(path).graph.initializer:
        tensor = ir.serde.deserialize_tensor(stored, folder)
        if tensor.dtype not in FLOATS:
            continue
        if not np.isfinite(tensor.numpy().astype(np.float64)).all():
            found.append(f"'{stored.name}'")
            if len(found) == most:
                break
    return found
