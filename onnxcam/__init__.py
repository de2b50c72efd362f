"""Explain exported vision models: Grad-CAM from an ONNX file and an image.

>>> import onnxcam
>>> explainer = onnxcam.Explainer(onnxcam.default_model())
>>> [best] = explainer.explain(onnxcam.default_photograph())
>>> best.save("overlay.png")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxcam._version import __version__
from onnxcam.errors import OnnxcamError

if TYPE_CHECKING:
    from onnxcam.explainer import Explainer
    from onnxcam.explanation import Explanation
    from onnxcam.gradient.differentiate import add_gradients
    from onnxcam.image_files import explain_files
    from onnxcam.imaging.preprocess import Preprocess
    from onnxcam.imaging.style import Style
    from onnxcam.methods.base import Method
    from onnxcam.methods.registry import register
    from onnxcam.portable import export
    from onnxcam.sheets import contact_sheet
    from onnxcam.targets.weighted import Similarity

__all__ = [
    "Explainer",
    "Explanation",
    "Method",
    "OnnxcamError",
    "Preprocess",
    "Similarity",
    "Style",
    "__version__",
    "add_gradients",
    "contact_sheet",
    "default_model",
    "default_photograph",
    "explain_files",
    "export",
    "register",
]

_LAZY = {
    "Explainer": "onnxcam.explainer",
    "Explanation": "onnxcam.explanation",
    "Method": "onnxcam.methods.base",
    "Preprocess": "onnxcam.imaging.preprocess",
    "Similarity": "onnxcam.targets.weighted",
    "Style": "onnxcam.imaging.style",
    "add_gradients": "onnxcam.gradient.differentiate",
    "contact_sheet": "onnxcam.sheets",
    "explain_files": "onnxcam.image_files",
    "export": "onnxcam.portable",
    "register": "onnxcam.methods.registry",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line starts fast."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'onnxcam' has no attribute '{name}'")


def __dir__() -> list[str]:
    """List what is imported on first use, too."""
    return sorted({*globals(), *__all__})


def default_model() -> Path:
    """Return the embedded model, EfficientNet-Lite0 for ImageNet (Apache-2.0)."""
    return _embedded("efficientnet-lite0.onnx")


def default_photograph() -> Path:
    """Return the embedded photograph, Chelsea the cat (CC0)."""
    return _embedded("chelsea.png")


def _embedded(name: str) -> Path:
    from onnxcam.files import packed

    return Path(str(packed("models") / name))
