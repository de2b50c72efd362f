"""Gradients of every node test of the ONNX standard, against central differences.

python -m tests.gradient.nodes.cases

checks all of them twice, as they are given and with every length left to the run, and writes
docs/node-cases.md. Words after it choose the tests whose names contain one of them, and print
what was found of each in place of the page.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnxruntime

from .check import CRASH, NOT_RUNNABLE, REFUSED, check, verdict
from .models import Example, symbolic
from .probe import NO_ORACLE, NOTHING, RIGHT, SETTING, WRONG, Pair

PAGE = Path(__file__).parents[3] / "docs" / "node-cases.md"
Variant = Callable[[Example], Example] | None
Results = dict[str, list[Pair]]

# False alarms: tests whose differences mean nothing.
EXPLAINED = {
    "test_mod_float_edge_cases_fmod_0": "it divides infinity and by 0; what comes out is NaN, and "
    "so is its gradient (ONNX Runtime refuses this mode of Mod)",
}
SETTINGS = {
    "r": "the ratio of a Dropout that drops nothing still scales",
    "scales": "they set the shape of what Resize returns, in steps",
    "x": "as the scale that DynamicQuantizeLinear returns moves with the values, what the codes "
    "stand for does not",
    "x_scale": "codes were written with the scale that they are read with; the gradient goes "
    "straight through both",
}
MEANING = {
    RIGHT: "every gradient equals the differences; what has none is flat",
    NOTHING: "no input or output of floating point, or flat: the differences are 0 as well",
    SETTING: "the only input of floating point says how to compute, and has no gradient",
    REFUSED: "an error says why there is no gradient",
    NOT_RUNNABLE: "neither the runtime nor the evaluator runs it or its gradient",
    NO_ORACLE: "nothing to compare with",
    "explained": "differences mean nothing there, see below",
    WRONG: "a gradient does not equal the differences",
    CRASH: "an exception without a reason, or a model that is not valid or does not run",
}
ORACLES = {
    "double": "the runtime's own double kernels",
    "reference": "onnx's reference evaluator in float64",
    "float": "the runtime's float kernels, over larger steps",
    "reference alone": "the reference evaluator, which ran the gradient too",
}
INTRODUCTION = """\
# The standard's own node tests

`onnx.backend.test` of onnx {onnx} (opset {opset}) holds {count} node tests: models of one operator,
or of the operators that its function body is made of, with the data to run them on. Here
`onnxcam.add_gradients` differentiates every floating-point output of each with respect to every
floating-point input; the result is run in ONNX Runtime {runtime} with two cotangents at once, and
its products with single elements and random directions are compared with central differences.
Written by

    python -m tests.gradient.nodes.cases

`tests/gradient/nodes/test_node_cases.py` checks half of them in each way.

Operands are first moved a little within their range, off kinks, ties and whole numbers. Differences
are believed where several steps agree. What opset {opset} brought is lowered to what the runtime
loads where the operator was there before; sequences and optional values are put together from
tensors. What is refused as given, with operands of integers and booleans fed, is tried again with
these stored in the model, as exporters write them ({stored} tests need that as given).

*As given* keeps the declared shapes; *open* leaves every length to the run. Of the tests that are
right as given, {alone} do not load in the runtime; there the reference evaluator ran the gradient.
"""


@cache
def collect() -> list[Any]:
    """Return the node tests of the installed onnx, once each."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list({case.name: case for case in load_model_tests(kind="node")}.values())


def result(name: str, pairs: list[Pair]) -> str:
    """Return what a test comes to."""
    found = verdict(pairs)
    return "explained" if found == WRONG and explanation(name) else found


def explanation(name: str) -> str:
    """Return why differences mean nothing for a test, empty where they do."""
    return next((why for start, why in EXPLAINED.items() if name.startswith(start)), "")


def sweep(cases: list[Any], variant: Variant) -> Results:
    """Check all of them."""
    return {case.name: check(case, variant) for case in cases}


def page(given: Results, opened: Results) -> str:
    """Return the summary."""
    columns = [Counter(result(n, p) for n, p in r.items()) for r in (given, opened)]
    right = [pairs for pairs in given.values() if verdict(pairs) == RIGHT]
    alone = sum(any(p.why == "reference alone" for p in pairs) for pairs in right)
    lines = [
        INTRODUCTION.format(
            onnx=onnx.__version__,
            opset=onnx.defs.onnx_opset_version(),
            count=len(given),
            runtime=onnxruntime.__version__,
            stored=sum(pairs[0].stored for pairs in right),
            alone=alone,
        )
    ]
    lines += _table("tests", "as given", "open", "meaning")
    lines += [f"| {v} | {columns[0][v]} | {columns[1][v]} | {why} |" for v, why in MEANING.items()]
    lines += ["", "## What they were compared with", ""]
    lines += _table("pairs of an output and an input that are right", "as given", "open")
    by = [Counter(p.why for _, p in _pairs(r, RIGHT)) for r in (given, opened)]
    lines += [f"| {why} | {by[0][v]} | {by[1][v]} |" for v, why in ORACLES.items()]
    for which in (REFUSED, NOT_RUNNABLE, NO_ORACLE):
        lines += ["", f"## {which.capitalize()}", ""]
        lines += [*_table("reason", "as given", "open", "tests"), *_reasons(given, opened, which)]
    lines += ["", "## Settings", "", "Inputs of floating point that get no gradient, although"]
    lines += ["differences with respect to them are not 0.", ""]
    lines += _table("operand", "tests", "why")
    settings = defaultdict(set)
    for name, pair in _pairs(given, SETTING):
        settings[pair.to].add(name)
    lines += [f"| `{t}` | {_some(n)} | {SETTINGS[t]} |" for t, n in sorted(settings.items())]
    lines += ["", "## Explained", "", *_table("tests", "why")]
    lines += [f"| `{start}...` | {why} |" for start, why in EXPLAINED.items()]
    return "\n".join(lines) + "\n"


def _table(*header: str) -> list[str]:
    return [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]


def _pairs(results: Results, which: str) -> Iterator[tuple[str, Pair]]:
    for name, pairs in results.items():
        yield from ((name, pair) for pair in pairs if pair.verdict == which)


def _reasons(given: Results, opened: Results, which: str) -> list[str]:
    """Return rows of what was said, the names in it left out."""
    found: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for column, results in enumerate((given, opened)):
        for name, pair in _pairs(results, which):
            if result(name, results[name]) == which:
                found[_general(pair.why)][column].add(name)
    rows = sorted(found.items(), key=lambda item: (-len(item[1][0]), item[0]))
    return [
        f"| {why} | {len(names[0])} | {len(names[1])} | {_some(names[0] | names[1])} |"
        for why, names in rows
    ]


def _general(why: str) -> str:
    """Return a message without the names and numbers of one model."""
    text = why.strip().splitlines()[0].removeprefix("model.onnx: ")
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : (\w+) : ", "", text)
    text = re.sub(r"/\S+:\d+ .*?(?=ONNX Runtime only|Unsupported model|\S+ was false|$)", "", text)
    text = re.sub(r" \((node|producing) '[^']*'(, opset \d+)?\)", "", text)
    text = re.sub(r"'[^']*'", "...", text)
    text = re.sub(r" The operator schemas.*| docs/operators.md says.*|, which lies.*", ".", text)
    text = re.sub(r"In Node, .*?, Error ", "", text)
    return text.replace("|", "\\|")[:200]


def _some(names: set[str]) -> str:
    """Return a few names, the shortest first."""
    shown = [f"`{n.removeprefix('test_')}`" for n in sorted(names, key=lambda n: (len(n), n))[:3]]
    return ", ".join(shown) + (", ..." if len(names) > 3 else "")


def main() -> None:
    words = sys.argv[1:]
    cases = [c for c in collect() if not words or any(word in c.name for word in words)]
    both = [sweep(cases, variant) for variant in (None, symbolic)]
    if words:
        for results, how in zip(both, ("as given", "open"), strict=True):
            for name, pairs in results.items():
                print(f"{name} ({how}): {result(name, pairs)}", *pairs, sep="\n    ")
    else:
        PAGE.write_text(page(*both))
    bad = {n for r in both for n, p in r.items() if result(n, p) in (WRONG, CRASH)}
    sys.exit(f"wrong: {sorted(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
