"""How a walk differs from the derivative: rules laid over the table of derivatives.

An override is a frozen object with parameters. Of each node it is asked for a rule, being told
where the node lies and which rule the walk would take otherwise, which it may use. ``None`` leaves
that rule in place. It may take several nodes for one: a rule that hands a cotangent to the first
of them, and none to those between, has them left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import onnx_ir as ir

from onnxcam.gradient.backward import FindRule, Where
from onnxcam.gradient.kinds import Rule


class Override(Protocol):
    """What differs from the derivative."""

    @property
    def name(self) -> str:
        """What messages and metadata call it."""

    def rule_for(self, node: ir.Node, where: Where, beneath: Rule) -> Rule | None:
        """Return the rule to take in place of ``beneath``; ``None`` leaves that one."""


def laid_over(table: Callable[[ir.Node], Rule | None], overrides: Sequence[Override]) -> FindRule:
    """Return how a walk finds rules: the table's, with overrides laid over it, the last on top."""

    def find(node: ir.Node, where: Where) -> Rule | None:
        found = table(node)
        for override in overrides:
            if found is not None:
                found = override.rule_for(node, where, found) or found
        return found

    return find
