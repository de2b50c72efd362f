"""Write docs/operators.md: which operators have a gradient, read from the registry.

python docs/make_operators.py
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import onnx
import onnx.defs

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxcam.gradient.add  # noqa: E402, F401  (registers the rules)
from onnxcam.gradient.function_bodies import body_opset  # noqa: E402
from onnxcam.gradient.kinds import Expansion, Joint, PerOperand, Rule, Stop  # noqa: E402
from onnxcam.gradient.ort.equivalents import EQUIVALENTS  # noqa: E402
from onnxcam.gradient.ort.rewrites import TRUSTED  # noqa: E402
from onnxcam.gradient.registry import RULES  # noqa: E402
from tests.gradient.cases import CASES  # noqa: E402
from tests.gradient.test_rules import ELSEWHERE  # noqa: E402

PAGE = Path(__file__).with_name("operators.md")
COMMAND = "python docs/make_operators.py"
LOWEST = 7  # opset; models of a lower one are lifted

# Operators of the standard that are not differentiated, and why.
WITHOUT = {
    "Constant RandomNormal RandomUniform": "it has no operands",
    "ImageDecoder": "it reads the bytes of a file",
    "SequenceMap": "its sequence is the state of a loop, whose parts rules cannot tell apart",
    "RegexFullMatch StringConcat StringNormalizer StringSplit": "it works on text",
    "TfIdfVectorizer": "it counts integers or words",
}

INTRODUCTION = """\
# Operators

Which operators onnxcam differentiates, how, how that is checked, and what is refused. Written by
`{command}` from the registry of rules (`onnxcam/gradient/rules`), the definitions in onnx {version}
(opset {opset}) and the tests; a test fails when this page is stale.

* **Opsets**: those from {lowest} on in which the operator's definition changed; {lowest} stands for
  the one in force there. Models of a lower opset are lifted.
* **Gradient**: a *rule* of its own; an *expansion* into other operators, which are differentiated
  in its place; the standard's *function body*, the same way; or none, because it *stops* there.
* **Needs**: the opset that the gradient's operators need; it may depend on the node's attributes.
  Models of a lower one are lifted.
* **Checked**: the number of cases in `tests/gradient/cases`, each compared with central finite
  differences in float64, with one cotangent and with three, and most with lengths that only the
  run knows; or the test in `tests/gradient` that does it in another way. ORT: also against ONNX
  Runtime's own gradient builder (`tests/ort_training`). PyTorch: also by itself against autograd
  (`tests/parity`), which whole networks are compared with, whatever their operators. Besides, the
  standard's own node tests: [node-cases.md](node-cases.md).
* **Refused**: what can end in an error that names the node, as the rule declares it. Besides,
  any operator may be refused where a rank is unknown, or for a gradient through an output that its
  rule does not know. Expansions and function bodies also refuse what the operators in them refuse.

[architecture.md](architecture.md) says how to add a rule.
"""


def limits(op_type: str, domain: str, found: Rule, opset: int) -> str:
    """Return what is refused."""
    texts = []
    schema = definition(op_type, domain, opset)
    if schema is not None and isinstance(found, PerOperand):
        more = [f"`{s.name}`" for s in schema.outputs[1:] if takes_floats(s)]
        texts += [f"the gradient comes through {' or '.join(more)}"] if more else []
    return "; ".join([*texts, *sorted(reason.replace("{}", "...") for reason in found.refuses)])


def way(op_type: str, domain: str, found: Rule, opset: int) -> str:
    """Return how an operator is differentiated."""
    if isinstance(found, Stop):
        return f"stops: {found.why}"
    if isinstance(found, Expansion):
        return "expansion"
    if not isinstance(found, PerOperand | Joint):
        return "rule"
    schema = definition(op_type, domain, opset)
    operands = enumerate(schema.inputs if schema is not None else ())
    flat = [f"`{s.name}`" for i, s in operands if takes_floats(s) and not found.has_maker(i)]
    return f"rule; none for {', '.join(flat)}" if flat else "rule"


def definition(op_type: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    """Return the newest definition in the standard, if it has one."""
    known = not domain and onnx.defs.has(op_type)
    return onnx.defs.get_schema(op_type, opset) if known else None


def takes_floats(parameter: onnx.defs.OpSchema.FormalParameter) -> bool:
    return "tensor(float)" in parameter.types


def history(opset: int) -> dict[str, list[onnx.defs.OpSchema]]:
    """Return the definitions of the standard's operators up to an opset, oldest first."""
    found: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= opset:
            found.setdefault(schema.name, []).append(schema)
    return {
        name: sorted(schemas, key=lambda s: s.since_version)
        for name, schemas in sorted(found.items())
    }


def opsets(schemas: list[onnx.defs.OpSchema]) -> str:
    versions = dict.fromkeys(max(s.since_version, LOWEST) for s in schemas if not s.deprecated)
    return ", ".join(map(str, versions)) or "ONNX Runtime's"


CASE_COUNT = Counter((case.domain, case.op) for case in CASES)


@cache
def in_parity() -> set[str]:
    """Return the operators that tests against PyTorch name."""
    return {
        node.value
        for file in sorted((ROOT / "tests" / "parity").glob("test_*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and ("", node.value) in RULES
    }


def checks(op_type: str, domain: str) -> str:
    texts, key = [], (domain, op_type)
    if CASE_COUNT[key]:
        texts.append(f"{CASE_COUNT[key]} case{'s' * (CASE_COUNT[key] > 1)}")
    if key in ELSEWHERE:
        texts.append(f"`{ELSEWHERE[key]}`")
    if not domain and op_type in TRUSTED | set(EQUIVALENTS):
        texts.append("ORT")
    if not domain and op_type in in_parity():
        texts.append("PyTorch")
    return ", ".join(texts)


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def table(*header: str) -> list[str]:
    return [row(*header), f"|{'---|' * len(header)}"]


def described(op_type: str, domain: str, versions: str, opset: int) -> str:
    """Return the row of an operator that the gradient reaches."""
    found, checked = RULES.get((domain, op_type)), checks(op_type, domain)
    if found is None:
        needs = str(max(body_opset(op_type) or 0, 13))
        return row(op_type, versions, "function body", needs, checked, "")
    how = way(op_type, domain, found, opset)
    if isinstance(found, Stop):
        return row(op_type, versions, how, "", "", "")
    needs = str(found.opset) if isinstance(found.opset, int) else "depends"
    return row(op_type, versions, how, needs, checked, limits(op_type, domain, found, opset))


def since(domain: str, op_type: str) -> str:
    """Return the opsets of another domain in which an operator changed; 1 if onnx has none."""
    every = onnx.defs.get_all_schemas_with_history()
    found = {s.since_version for s in every if (s.domain, s.name) == (domain, op_type)}
    return ", ".join(map(str, sorted(found))) or "1"


def tables(opset: int) -> Iterator[str]:
    """Yield the lines of all tables."""
    header = ("Operator", "Opsets", "Gradient", "Needs", "Checked", "Refused")
    known = history(opset)
    ruled = {name for domain, name in RULES if domain == ""}
    replaced = [name for name, schemas in known.items() if schemas[-1].deprecated]
    reasons = {name: why for names, why in WITHOUT.items() for name in names.split()}
    unknown = set(known) - ruled - set(reasons) - set(replaced)
    bodies = {name for name in unknown if body_opset(name) is not None}
    if unknown - bodies:
        raise ValueError(f"say in WITHOUT why there is no gradient: {sorted(unknown - bodies)}")
    if ruled & set(reasons):
        raise ValueError(f"these have a rule, so drop them: {sorted(ruled & set(reasons))}")
    yield from ("", "## The standard", "", *table(*header))
    for name in sorted(ruled | bodies):
        yield described(name, "", opsets(known.get(name, [])), opset)
    others = Counter(domain for domain, _ in RULES if domain)
    for other, _ in others.most_common():
        yield from ("", f"## Domain `{other}`", "", *table(*header))
        for domain, name in sorted(RULES):
            if domain == other:
                yield described(name, domain, since(domain, name), opset)
    yield from ("", "## Not differentiated", "")
    yield f"Operators of the standard; {' and '.join(replaced)}, which it has dropped, are replaced"
    yield "when a model is lifted."
    yield from ("", *table("Operator", "Opsets", "Why"))
    yield from (row(n, opsets(known[n]), reasons[n]) for n in sorted(reasons))


def introduction(version: str, opset: int) -> str:
    return INTRODUCTION.format(command=COMMAND, version=version, opset=opset, lowest=LOWEST)


def page(version: str, opset: int) -> str:
    """Return the page for the standard up to an opset."""
    return "\n".join([introduction(version, opset).rstrip(), *tables(opset), ""])


if __name__ == "__main__":
    PAGE.write_text(page(onnx.__version__, onnx.defs.onnx_opset_version()))
