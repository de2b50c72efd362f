"""Relevance, handed back from the score to the image by rules other than the derivative's.

The relevance of all pixels and channels adds up to the score, but for what biases take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcam.errors import MethodError
from onnxcam.methods.registry import register

if TYPE_CHECKING:
    from onnxcam.gradient.overrides.contributions import Contributions
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site

_COST = "4 to 6"
_NEEDS = "a model of usual layers"


def _relevance(s: Site, conv: Contributions, dense: Contributions, flat: bool = False) -> Term:
    from onnxcam.gradient.overrides.relevance import Relevance

    found = s.gradient(s.input, Relevance("lrp", conv, dense, flat))
    return found if flat else found * s.input


@register("lrp", "Kohlbrenner et al. 2020, section 2; Lapuschkin et al. 2019", space="input",
          proportional=True, needs=_NEEDS, cost=_COST)  # fmt: skip
def lrp(s: Site, epsilon: float = 1e-6, flat: int = 1) -> Term:
    """Relevance: z+ of convolutions, epsilon of dense layers, flat of the first; flat=0: z+."""
    from onnxcam.gradient.overrides.contributions import AlphaBeta, Epsilon

    return _relevance(s, AlphaBeta(1, 0), Epsilon(epsilon), bool(flat))


@register("lrp-epsilon", "Bach et al. 2015, eq. 58", space="input",
          proportional=True, needs=_NEEDS, cost=_COST)  # fmt: skip
def lrp_epsilon(s: Site, epsilon: float = 1e-6) -> Term:
    """Relevance R: each input takes x w R / (z + epsilon sign(z))."""
    from onnxcam.gradient.overrides.contributions import Epsilon

    if epsilon < 0:
        raise MethodError(f"method 'lrp-epsilon': epsilon = {epsilon} must not be negative.")
    return _relevance(s, Epsilon(epsilon), Epsilon(epsilon))


@register("lrp-gamma", "Montavon et al. 2019, section 10.2.3", space="input",
          proportional=True, needs=_NEEDS, cost=_COST)  # fmt: skip
def lrp_gamma(s: Site, gamma: float = 0.25, epsilon: float = 1e-6) -> Term:
    """Relevance: shares of w + gamma w+ in convolutions, epsilon of dense layers."""
    from onnxcam.gradient.overrides.contributions import Epsilon, Gamma

    return _relevance(s, Gamma(gamma), Epsilon(epsilon))


@register("lrp-z-plus", "Montavon et al. 2017, eq. 13", space="input",
          proportional=True, needs=_NEEDS, cost=_COST)  # fmt: skip
def lrp_z_plus(s: Site) -> Term:
    """Relevance: each input takes a share of what speaks for the unit, x w > 0."""
    from onnxcam.gradient.overrides.contributions import AlphaBeta

    return _relevance(s, AlphaBeta(1, 0), AlphaBeta(1, 0))


@register("lrp-alpha-beta", "Bach et al. 2015, eq. 60", space="input",
          proportional=True, needs=_NEEDS, cost="6 to 9")  # fmt: skip
def lrp_alpha_beta(s: Site, beta: float = 1.0, epsilon: float = 1e-6) -> Term:
    """Relevance: in convolutions 1 + beta of what speaks for a unit, less beta of the rest."""
    from onnxcam.gradient.overrides.contributions import AlphaBeta, Epsilon

    return _relevance(s, AlphaBeta(1 + beta, beta), Epsilon(epsilon))


@register("attn-lrp", "Achtibat et al. 2024, section 3.3", space="input",
          proportional=True, needs=_NEEDS, cost=_COST)  # fmt: skip
def attn_lrp(s: Site, gamma: float = 0.0) -> Term:
    """Relevance through attention: half to each factor, normalizations taken as linear.

    Linear layers take the rule of lrp-gamma, or with gamma=0 the gradient.
    """
    from onnxcam.gradient.overrides.contributions import Epsilon, Gamma

    rule = Gamma(gamma) if gamma else Epsilon(0)
    return _relevance(s, rule, rule)


@register("deep-lift", "Shrikumar et al. 2017, section 3.5.1", space="input",
          proportional=True, needs="a model of usual layers", cost="5 to 7")  # fmt: skip
def deep_lift(s: Site, baseline: float = 0.0) -> Term:
    """(x - b) times slopes (y - y_b) / (x - x_b) in place of derivatives: the rescale rule."""
    from onnxcam.gradient.overrides.deep_lift import DeepLift

    multipliers = s.gradient(s.input, DeepLift(s.reference(baseline)))
    return multipliers * (s.input - baseline)
