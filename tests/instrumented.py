"""Models instrumented for tests: Grad-CAM's map, or activations and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxcam.gradient.interface import Engine
from onnxcam.graph.terms import Term
from onnxcam.surgeon import instrument as surgeon
from onnxcam.surgeon.plan import Plan
from onnxcam.surgeon.site import Site, Weighted

SIGNED = "onnxcam:signed"  # [N, T, *S]
GRADIENTS = "onnxcam:full:gradients"  # [T, N, K, *S]; the layer's own name gives its activations
ACTIVATIONS = "onnxcam:full:activations"


@dataclass(frozen=True)
class GradCam:
    space: str = "layer"

    def graph(self, site: Site) -> Weighted:
        return site.weighted(site.pooled())


@dataclass(frozen=True)
class Full:
    space: str = "layer"

    def graph(self, site: Site) -> Mapping[str, Term]:
        return {"gradients": site.gradient(), "activations": site.activations}


def instrument(
    path: str | Path,
    layer: str | int = "auto",
    score: str = "auto",
    *,
    gradients: bool = False,
    engine: Engine = "rules",
) -> tuple[bytes, Plan]:
    parts = {"full": Full()} if gradients else {"signed": GradCam()}
    return surgeon.instrument(
        path, surgeon.Request(parts, (str(layer),), score=score, engine=engine)
    )
