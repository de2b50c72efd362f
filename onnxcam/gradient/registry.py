"""The table of gradient rules, and how modules in ``rules/`` register theirs.

:func:`rule` registers makers by operand, :func:`joint` makers that take the cotangents of all
outputs, :func:`expansion` an operator that is written with others, :func:`whole` one with
subgraphs, and :func:`stop` one through which no gradient passes, with the reason.
:mod:`onnxcam.gradient.kinds` says what each kind does.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxcam.gradient.function_bodies import REFUSES, body_opset, from_schema
from onnxcam.gradient.kinds import (
    Expander,
    Expansion,
    Joint,
    JointMaker,
    Maker,
    Opset,
    PerOperand,
    Rule,
    Stop,
    Variadic,
    VariadicMaker,
    Whole,
    WholeMaker,
)
from onnxcam.model.opset import BASE_OPSET

RULES: dict[tuple[str, str], Rule] = {}


def _register(op_types: str, domain: str, found: Rule) -> None:
    for op_type in op_types.split():
        RULES[domain, op_type] = found


def rule(
    op_types: str,
    *makers: Maker | None,
    variadic: VariadicMaker | None = None,
    broadcasts: bool = False,
    opset: Opset = BASE_OPSET,
    refuses: Sequence[str] = (),
    domain: str = "",
) -> None:
    """Register the rule of one or several operators.

    Args:
        op_types: their names, separated by spaces.
        makers: one for each operand, ``None`` for one that carries no gradient.
        variadic: the maker of every operand, for operators with any number of them.
        broadcasts: operands may have been broadcast; the walker undoes it.
        opset: the opset that the rule's operators need, or a function of the node.
        refuses: the reasons with which makers refuse a node, ``{}`` for what varies.
        domain: the operators' domain.
    """
    if variadic is not None:
        found: Rule = Variadic(
            maker=variadic, broadcasts=broadcasts, opset=opset, refuses=tuple(refuses)
        )
    else:
        found = PerOperand(
            makers=makers, broadcasts=broadcasts, opset=opset, refuses=tuple(refuses)
        )
    _register(op_types, domain, found)


def joint(
    op_types: str, *makers: JointMaker | None, opset: Opset = BASE_OPSET, domain: str = ""
) -> None:
    """Register operators of which every output can carry a cotangent: makers take all of them."""
    _register(op_types, domain, Joint(makers=makers, opset=opset))


def expansion(
    op_types: str,
    expand: Expander,
    opset: Opset = BASE_OPSET,
    refuses: Sequence[str] = (),
    domain: str = "",
) -> None:
    """Register operators that can be written with others.

    ``expand`` appends these with ``call.op`` and returns the values of the node's outputs, in
    order. It may use operators that are expanded themselves.
    """
    _register(op_types, domain, Expansion(expand=expand, opset=opset, refuses=tuple(refuses)))


def whole(
    op_types: str, maker: WholeMaker, opset: Opset = BASE_OPSET, refuses: Sequence[str] = ()
) -> None:
    """Register operators with subgraphs, see :class:`onnxcam.gradient.kinds.Whole`."""
    _register(op_types, "", Whole(maker=maker, opset=opset, refuses=tuple(refuses)))


def stop(op_types: str, why: str, domain: str = "") -> None:
    """Register operators through which no gradient passes, and why."""
    _register(op_types, domain, Stop(why=why))


def find_rule(node: ir.Node) -> Rule | None:
    """Return the rule of a node's operator.

    An operator of the standard that has none is differentiated through its function body.
    """
    found = RULES.get((node.domain, node.op_type))
    if found is None and node.domain == "":
        opset = body_opset(node.op_type)
        if opset is None:
            return None
        return Expansion(expand=from_schema, opset=max(opset, BASE_OPSET), refuses=REFUSES)
    return found
