"""How a walk differs from the derivative: rules laid over the table of derivatives.

An override is a frozen object with parameters. Of each node it is asked for a rule, being told
where the node lies and which rule the walk would take otherwise, which it may use. ``None`` leaves
that rule in place. It may take several nodes for one: a rule that hands a cotangent to the first
of them, and none to those between, has them left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from onnxcam.gradient.backward import FindRule, Where
from onnxcam.gradient.kinds import Rule


class Override(Protocol):
    """What differs from the derivative.

    One that only writes the derivative in another way says so by ``same_values = True``. Of all
    others, rules that take several nodes for one (``x * sigmoid(x)``) leave the nodes alone.
    """

    @property
    def name(self) -> str:
        """What messages and metadata call it."""

    def rule_for(self, node: ir.Node, where: Where, beneath: Rule) -> Rule | None:
        """Return the rule to take in place of ``beneath``; ``None`` leaves that one."""


@dataclass(frozen=True, kw_only=True)
class Over(Rule):
    """A rule in place of another, which it may use."""

    beneath: Rule


def listed(text: str) -> frozenset[str]:
    """Return the operators that a text names."""
    return frozenset(text.split())


def laid_over(table: Callable[[ir.Node], Rule | None], overrides: Sequence[Override]) -> FindRule:
    """Return how a walk finds rules: the table's, with overrides laid over it, the last on top."""

    def find(node: ir.Node, where: Where) -> Rule | None:
        found = table(node)
        for override in overrides:
            if found is not None:
                found = override.rule_for(node, where, found) or found
        return found

    return find


def changes(
    table: Callable[[ir.Node], Rule | None], overrides: Sequence[Override]
) -> Callable[[ir.Node, Where], bool]:
    """Return how a walk finds out whether a node's rule is other than its derivative."""
    others = [o for o in overrides if not getattr(o, "same_values", False)]
    find = laid_over(table, others)

    def changed(node: ir.Node, where: Where) -> bool:
        return bool(others) and find(node, where) is not table(node)

    return changed
