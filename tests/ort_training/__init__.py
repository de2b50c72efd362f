"""ONNX Runtime's gradient builder against onnxcam's rules.

The training build replaces onnxruntime, so these tests run in an environment of their own:
``pip install -e '.[ort-training,test]'``, then ``pytest tests/ort_training``.
"""

from __future__ import annotations

import pytest

from onnxcam.errors import EngineError
from onnxcam.gradient.ort.engine import builder_class


def _present() -> bool:
    try:
        builder_class()
    except EngineError:
        return False
    return True


PRESENT = _present()
needs_training = pytest.mark.skipif(
    not PRESENT, reason="needs the training build: pip install '.[ort-training,test]'"
)
