"""What each method is to cost, over the forward pass: the project's aims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from onnxcam.methods.base import Method

CAM, GRADIENT, PRODUCT = "CAMs", "gradients at the image", "guided Grad-CAM"
LRP, OTHERS = "LRP", "others"
_PRODUCTS = ("guided-grad-cam", "deconv-grad-cam")
_GRADIENTS = ("saliency", "input-x-gradient", "guided-backprop", "deconvnet")
_BLOCKS = ("attention-gradient", "le-grad")  # these walk through every block
_CNNS = ("resnet50", "mobilenet_v2", "vgg16")
_SHORT = 5e-3  # seconds: a pass under which what lies around it weighs more


def family(method: Method) -> str:
    """Return which aim a method of one run has."""
    if method.name in _PRODUCTS:
        return PRODUCT
    if method.name in _GRADIENTS:
        return GRADIENT
    if method.name.startswith("lrp"):
        return LRP
    at_last = method.space == "layer" and not method.joins and method.name not in _BLOCKS
    return CAM if at_last else OTHERS


def families(known: Mapping[str, Method]) -> dict[str, list[str]]:
    """Return the methods of one run by their families."""
    found: dict[str, list[str]] = {CAM: [], GRADIENT: [], PRODUCT: [], LRP: [], OTHERS: []}
    for name, method in known.items():
        if method.drive is None:
            found[family(method)].append(name)
    return found


def aim(of: str, network: str, batch: int) -> float | None:
    """Return the aim of a family, for batches of 1 and of more."""
    if of == CAM and network not in _CNNS:
        return 1.35 if batch == 1 else 1.30
    if of == CAM and batch == 1:
        return 1.35 if network == "vgg16" else 1.15
    if of == CAM:
        return 1.10
    if network not in _CNNS:
        return None
    gradient = 4.4 if network == "mobilenet_v2" else 2.6
    if of in (GRADIENT, PRODUCT):
        return gradient + (0.2 if of == PRODUCT else 0)
    return 5.0 if of == LRP and network != "mobilenet_v2" else None


def many(method: Method, runs: Counter[str], network: str, seconds: float) -> float:
    """Return the aim of a method of many runs, over as many images' forward pass.

    A run that gives gradients at the image counts as what saliency is to take; those of the part
    behind a layer as a quarter.
    """
    gradient = aim(GRADIENT, network, 1) or 2.6
    weights = {"gradient": gradient, "tail": 0.25}
    share = sum(n * weights.get(kind, 1.0) for kind, n in runs.items()) / max(runs.total(), 1)
    return (1.4 if seconds < _SHORT else 1.2) * share
