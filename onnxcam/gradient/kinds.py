"""The kinds of gradient rules, each with one method that the walk calls.

A rule has one *maker* for each operand: a function of the call and the output's cotangent that
appends operators and returns the operand's cotangent. Cotangents have a leading axis ``T``: for
a value of shape ``S`` they are ``[T, *S]``. Saved values broadcast against it from the right;
rules that need the plain rank merge it into the batch with ``call.merge_t``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxcam.errors import NoGradientError
from onnxcam.gradient.appended import appended, infer_appended, last_node
from onnxcam.gradient.backward import Backward, Cotangents
from onnxcam.gradient.call import Call
from onnxcam.gradient.walker import add_cotangents, pull_back, unbroadcast
from onnxcam.graph.values import describe, is_float, reads
from onnxcam.model.opset import BASE_OPSET

Maker = Callable[[Call, ir.Value], ir.Value | None]
VariadicMaker = Callable[[Call, ir.Value, int], ir.Value | None]
JointMaker = Callable[[Call, Cotangents], ir.Value | None]
Expander = Callable[[Call], Sequence[ir.Value | None]]
WholeMaker = Callable[[Call, Cotangents, Sequence[ir.Value]], Cotangents]
Opset = int | Callable[[ir.Node], int]
Pairs = Iterator[tuple[ir.Value, ir.Value]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How an operator is differentiated.

    Attributes:
        opset: the opset that the rule's operators need, or a function of the node.
        refuses: the reasons with which it may refuse a node, ``{}`` for what varies.
        gates: no cotangent passes where the operator's derivative is 0.
    """

    opset: Opset = BASE_OPSET
    refuses: tuple[str, ...] = ()
    gates: bool = True

    def needed(self, node: ir.Node) -> int:
        """Return the opset that the rule needs for ``node``."""
        return self.opset if isinstance(self.opset, int) else self.opset(node)

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        """Append a node's backward pass; yield values that it reads, with a cotangent each."""
        raise NotImplementedError

    def why_none(self, node: ir.Node, carrying: set[ir.Value]) -> str | None:
        """Return why no gradient passes from the node to the values that carry one."""
        return None


@dataclass(frozen=True, kw_only=True)
class Operands(Rule):
    """A rule by operands; ``broadcasts`` has what broadcasting did to them undone."""

    broadcasts: bool = False

    def has_maker(self, index: int) -> bool:
        """Whether an operand carries a gradient."""
        raise NotImplementedError

    def make(self, call: Call, gs: Cotangents, index: int) -> ir.Value | None:
        """Append the cotangent of one operand; ``None`` where it has none."""
        raise NotImplementedError

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        """Hand each operand its cotangent."""
        call = Call(node, walk, self.refuses)
        for index, operand in enumerate(node.inputs):
            if operand is None or operand not in carrying or not self.has_maker(index):
                continue
            g = self.make(call, gs, index)
            if g is not None:
                yield operand, unbroadcast(call, g, operand) if self.broadcasts else g

    def why_none(self, node: ir.Node, carrying: set[ir.Value]) -> str | None:
        """Return that all operands read are settings."""
        read = [i for i, v in enumerate(node.inputs) if v in carrying]
        if any(self.has_maker(i) for i in read):
            return None
        return f"it takes operand {' and '.join(map(str, read))} as a setting, not as data"


def _only_first(call: Call, gs: Cotangents) -> ir.Value:
    first, *others = gs
    if first is None or any(g is not None for g in others):
        raise call.refuse("the gradient comes through its second output")
    return first


@dataclass(frozen=True, kw_only=True)
class PerOperand(Operands):
    """One maker for each operand; ``None`` in its place says that it carries no gradient."""

    makers: tuple[Maker | None, ...]

    def has_maker(self, index: int) -> bool:
        """Whether an operand has a maker."""
        return index < len(self.makers) and self.makers[index] is not None

    def make(self, call: Call, gs: Cotangents, index: int) -> ir.Value | None:
        """Call the operand's maker."""
        maker = self.makers[index]
        assert maker is not None
        return maker(call, _only_first(call, gs))


@dataclass(frozen=True, kw_only=True)
class Variadic(Operands):
    """One maker for any number of operands, which is told the operand's index."""

    maker: VariadicMaker

    def has_maker(self, index: int) -> bool:
        """Every operand has the maker."""
        return True

    def make(self, call: Call, gs: Cotangents, index: int) -> ir.Value | None:
        """Call the maker for one operand."""
        return self.maker(call, _only_first(call, gs), index)


@dataclass(frozen=True, kw_only=True)
class Joint(Operands):
    """Makers that take the cotangents of all outputs."""

    makers: tuple[JointMaker | None, ...]

    def has_maker(self, index: int) -> bool:
        """Whether an operand has a maker."""
        return index < len(self.makers) and self.makers[index] is not None

    def make(self, call: Call, gs: Cotangents, index: int) -> ir.Value | None:
        """Call the operand's maker with all cotangents."""
        maker = self.makers[index]
        assert maker is not None
        return maker(call, gs)


@dataclass(frozen=True, kw_only=True)
class Whole(Rule):
    """Cotangents of everything that a node reads, made at once.

    For operators with subgraphs, which read values that are not among their operands. The maker
    takes the outputs' cotangents and the values that are wanted, and returns the cotangents of
    these, ``None`` for one that no output depends on.
    """

    maker: WholeMaker

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        """Hand everything that is read its cotangent."""
        wanted = [v for v in dict.fromkeys(reads(node)) if v in carrying]
        found = self.maker(Call(node, walk, self.refuses), gs, wanted)
        for value, g in zip(wanted, found, strict=True):
            if g is not None:
                yield value, g


@dataclass(frozen=True, kw_only=True)
class Stop(Rule):
    """No gradient passes; ``why`` says the reason."""

    why: str

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        """Hand nothing on."""
        yield from ()

    def why_none(self, node: ir.Node, carrying: set[ir.Value]) -> str | None:
        """Return the reason."""
        return self.why


@dataclass(frozen=True, kw_only=True)
class Expansion(Rule):
    """An operator that can be written with other operators is expanded.

    ``expand`` appends these, computing the node's outputs a second time, and returns them in
    order, ``None`` for an output that is refused or carries no gradient; the walk goes back
    through what was appended. The node itself stays, so what the model computes does not change.
    """

    expand: Expander

    def back(self, walk: Backward, node: ir.Node, gs: Cotangents, carrying: set[ir.Value]) -> Pairs:
        """Append the operators, and go back through them."""
        call, graph = Call(node, walk, self.refuses), walk.builder.graph
        last = last_node(graph)
        outputs = self.expand(call)
        nodes = appended(graph, last)
        infer_appended(walk.builder, nodes)
        pairs = []
        for index, g in enumerate(gs):
            value = outputs[index] if index < len(outputs) else None
            if value is not None:
                pairs.append((value, g))
            elif g is not None:
                raise call.refuse("the gradient comes through its output {}", index)
        wanted = [v for v in dict.fromkeys(reads(node)) if v in carrying]
        changed, around = len(walk.changed), walk.around
        walk.around = walk.where(node)
        try:
            pulled = pull_back(walk, nodes, add_cotangents(walk.builder, pairs), wanted)
        except NoGradientError as error:
            where = describe(node, walk.builder.opset)
            raise NoGradientError(f"{where} is expanded into others: {error}") from error
        walk.around = around
        for operand, g in zip(wanted, pulled, strict=True):
            if g is not None:
                yield operand, g
        _read_the_node(node, outputs, nodes)
        inside = walk.changed[changed:]
        walk.changed[changed:] = [node.name or node.outputs[0].name or ""] * len(inside)


def _read_the_node(
    node: ir.Node, outputs: Sequence[ir.Value | None], nodes: Sequence[ir.Node]
) -> None:
    """Have what reads an expansion's outputs read those of the node itself.

    They are the same. Where rules need nothing else, the expansion is then read by nobody, and
    nothing is computed twice.
    """
    made = {o for n in nodes for o in n.outputs}
    for value, own in zip(outputs, node.outputs, strict=False):
        if value in made and own.name and is_float(own) and value.dtype == own.dtype:
            for use in tuple(value.uses()):
                use.node.replace_input_with(use.idx, own)
