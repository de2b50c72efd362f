"""Class activation maps: sums of a layer's activations under weights.

``A`` are the activations, ``[N, K, *S]``; ``G = dy/dA`` is the score's gradient, ``[T, N, K, *S]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcam.methods.base import positive
from onnxcam.methods.registry import register

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site, Weighted


@register("grad-cam", "Selvaraju et al. 2017, eq. 1-2", proportional=True)
def grad_cam(s: Site, max: int = 0, relu: int = 1) -> Weighted | Term:
    """sum_k mean_S(G_k) A_k; max=1: max_S; relu=0: all of the map, from its least value on.

    The options are ablations of the paper, sections B.2 and B.3 of its supplement.
    """
    weights = s.max_space(s.gradient()) if max else s.pooled()
    if relu:
        return s.weighted(weights)
    found = s.sum_channels(s.over_space(weights) * s.activations)
    return found - s.min_space(found)


@register("counterfactual", "Selvaraju et al. 2017, section 3.3", proportional=True)
def counterfactual(s: Site) -> Weighted:
    """sum_k mean_S(-G_k) A_k: what speaks against the target."""
    return s.weighted(-s.pooled())


@register(
    "cam",
    "Zhou et al. 2016, eq. 2",
    needs="maps averaged, then one linear layer",
    proportional=True,
)
def cam(s: Site) -> Weighted:
    """sum_k w_k A_k, with the weights w of the last linear layer."""
    return s.weighted(s.head())


@register("hires-cam", "Draelos and Carin 2020, eq. 4", proportional=True)
def hires_cam(s: Site) -> Weighted:
    """sum_k G_k A_k, element by element."""
    return s.weighted_pixels(s.gradient())


@register("layer-cam", "Jiang et al. 2021, eq. 5-6", proportional=True)
def layer_cam(s: Site) -> Weighted:
    """sum_k relu(G_k) A_k, element by element."""
    return s.weighted_pixels(s.relu(s.gradient()))


@register("grad-cam++", "Chattopadhay et al. 2018, eq. 10-12 and 19", proportional=True)
def grad_cam_plus_plus(s: Site) -> Weighted:
    """sum_k w_k A_k, w = sum_S(a relu(G)), a = G^2 / (2 G^2 + sum_S(A) G^3).

    The denominator gets 1e-6 added, as in pytorch-grad-cam.
    """
    g = s.gradient()
    square = g * g
    total = s.sum_space(s.activations, keepdims=True)
    share = square / (square * 2.0 + total * (square * g) + 1e-6)
    return s.weighted(s.sum_space(share * s.relu(g)))


@register("xgrad-cam", "Fu et al. 2020, eq. 6", proportional=True)
def xgrad_cam(s: Site) -> Weighted:
    """sum_k w_k A_k, w = sum_S(G A) / sum_S(A).

    The denominator gets 1e-7 added, as in pytorch-grad-cam.
    """
    total = s.sum_space(s.activations) + 1e-7
    return s.weighted(s.sum_space(s.gradient() * s.activations) / total)


@register("grad-cam-elementwise", "Pillai and Pirsiavash 2021, eq. 2", proportional=True)
def grad_cam_elementwise(s: Site) -> Term:
    """sum_k relu(G_k A_k), element by element."""
    return s.sum_channels(s.relu(s.gradient() * s.activations))


@register("finer-cam", "Zhang et al. 2025, eq. 4", needs="a layer of maps, classes")
def finer_cam(s: Site, alpha: float = 1.0, compare: int = 3) -> Weighted:
    """grad-cam of y_c - alpha y_d, over the classes d of the nearest scores, by probability."""
    positive("finer-cam", compare=compare)
    finer = s.compared(alpha, int(compare))
    return finer.weighted(finer.pooled())


@register("shapley-cam", "Cai 2025", cost="1 to 2")
def shapley_cam(s: Site, rest: int = 0) -> Weighted:
    """sum_k mean_S(G - H A / 2)_k A_k, H the second derivatives; rest=1: of y + log softmax(y)."""
    site = s.residual() if rest else s
    bent = site.bent(site.activations)
    if bent is None:  # H is 0, as behind rectifiers and linear layers
        return site.weighted(site.pooled())
    return site.weighted(site.mean_space(site.gradient() - bent * 0.5))
