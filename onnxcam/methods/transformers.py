"""Maps of a vision transformer's attention, which is found in the graph.

``A_b`` is what Softmax gives in block ``b``, ``[N, M, L, L]`` of ``M`` heads and ``L`` tokens. The
row ``r`` says which tokens the score is read from: the class token, or all of them alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcam.methods.registry import register

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site

_NEEDS = "a transformer whose patches all attend to each other"


@register("attention-rollout", "Abnar and Zuidema 2020, eq. 1", needs=_NEEDS)
def attention_rollout(s: Site) -> Term:
    """The patches of r prod_b (I + mean_heads(A_b)) / 2, the same for every target."""
    tokens = s.tokens()
    row = tokens.read
    for a in reversed(tokens.attentions):
        row = (row + row.op("MatMul", tokens.mean_heads(a))) * 0.5
    return s.per_target(tokens.maps(row, 1))


@register(
    "attention-gradient", "Chefer et al. 2021 (generic), eq. 5-6", needs=_NEEDS, cost="2 to 3"
)
def attention_gradient(s: Site) -> Term:
    """The patches of r prod_b (I + mean_heads(relu(A_b dy/dA_b)))."""
    tokens = s.tokens()
    row = tokens.read
    pairs = zip(tokens.attentions, tokens.gradients(), strict=True)
    for a, g in reversed(list(pairs)):
        row = row + row.op("MatMul", tokens.mean_heads(s.relu(g * a)))
    return tokens.maps(row, 2)


@register("le-grad", "Bousselham et al. 2024, eq. 6-8", needs=_NEEDS, cost="2 to 3")
def le_grad(s: Site) -> Term:
    """The mean over blocks, heads and rows of relu(dy_b/dA_b), y_b read from block b's tokens."""
    tokens = s.tokens()
    gradients = [s.relu(g) for g in tokens.gradients_by_block()]
    rows = [tokens.mean_queries(tokens.mean_heads(g)) for g in gradients]
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return tokens.maps(total * (1 / len(rows)), 2)
