"""Check the gradients of one node test of the standard.

They are made by :func:`onnxcam.add_gradients`, of every output with respect to every input, and
compared with central differences at a point off the kinks.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx.checker

import onnxcam
from onnxcam.errors import NoGradientError, OnnxcamError

from .forward import as_run, close, forward, in_float, operands, oracle, runner
from .models import Example, Feeds, example, stored
from .probe import NO_ORACLE, NOTHING, RIGHT, SETTING, TARGETS, WRONG, Pair, Probe

REFUSED, CRASH, NOT_RUNNABLE = "refused", "crash", "not runnable"
_WORST = (CRASH, WRONG, REFUSED, NO_ORACLE, NOT_RUNNABLE, RIGHT, SETTING, NOTHING)
_POINTS = 3


def verdict(pairs: list[Pair]) -> str:
    """The worst of all pairs."""
    found = {pair.verdict for pair in pairs}
    return next((v for v in _WORST if v in found), NOTHING)


def check(case: Any, variant: Callable[[Example], Example] | None = None) -> list[Pair]:
    """Return what comes out for one node test.

    What is refused is tried again with the operands of integers and booleans stored, as models
    in practice have them.
    """
    found = example(case)
    if variant is not None:
        found = variant(found)
    if not found.inputs() or not found.outputs():
        return [Pair("", "", NOTHING, "no floating-point input or output")]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pairs = _attempt(found, case.name)
            if verdict(pairs) == REFUSED and len(found.feeds) > len(found.inputs()):
                again = _attempt(stored(found), case.name)
                if verdict(again) != NOT_RUNNABLE:
                    pairs = [replace(pair, stored=True) for pair in again]
        except Exception:
            return [Pair("", "", CRASH, traceback.format_exc(limit=-4))]
    return pairs


def _attempt(found: Example, name: str) -> list[Pair]:
    made = gradients(found)
    runnable, why = as_run(found)
    if runnable is None:
        return [Pair("", "", NOT_RUNNABLE, why)]
    if runnable is not found:
        made = gradients(runnable)
    checked = _checked(runnable, made, name)
    if verdict(checked) == NO_ORACLE and runnable.half:  # its rounding hides the differences
        plain = in_float(runnable)
        checked = _checked(plain, gradients(plain), name)
    return checked


def _checked(found: Example, made: list[Gradient], name: str) -> list[Pair]:
    """Compare at one point, and at others where that one may be too close to a kink."""
    checked: list[Pair] = []
    wrong = 0
    for point in range(_POINTS):
        checked = compare(found, made, np.random.default_rng([point, *name.encode()]))
        wrong += verdict(checked) == WRONG
        if wrong == 2 or verdict(checked) not in (WRONG, NO_ORACLE):
            break
    return checked


@dataclass
class Gradient:
    """A model with the gradients of one output, or why it has none."""

    of: str
    to: list[str]
    model: onnx.ModelProto | None = None
    refusal: str = ""


def gradients(found: Example) -> list[Gradient]:
    """Return the gradients of each output with respect to all inputs that have one."""
    return [g for of in found.outputs() for g in _gradients(found, of)]


def _gradients(found: Example, of: str) -> list[Gradient]:
    every = found.inputs()
    try:
        return [Gradient(of, every, onnxcam.add_gradients(found.model, of, every))]
    except OnnxcamError:
        pass
    made, to = [], []
    for name in every:
        try:
            onnxcam.add_gradients(found.model, of, name)
            to.append(name)
        except NoGradientError as error:
            flat = "in a differentiable way" in str(error)
            made.append(Gradient(of, [name], refusal="" if flat else str(error)))
        except OnnxcamError as error:
            made.append(Gradient(of, [name], refusal=str(error)))
    if to:
        made.append(Gradient(of, to, onnxcam.add_gradients(found.model, of, to)))
    return made


def computed(
    made: Gradient, found: Example, feeds: Feeds, seed: np.ndarray, actual: list[np.ndarray]
) -> list[np.ndarray]:
    """Run a model with gradients; its outputs must be those of the model without."""
    assert made.model is not None
    onnx.checker.check_model(made.model, full_check=_checkable(found.model))
    given = {k: v.astype(found.feeds[k].dtype) for k, v in feeds.items()}
    names = [f"gradient:{name}" for name in made.to]
    kind = next(v for v in made.model.graph.input if v.name == f"seed:{made.of}")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.type.tensor_type.elem_type)
    given[kind.name] = seed.astype(dtype)
    results = runner(made.model, found.by_reference)([*names, *found.outputs()], given)
    after = [np.asarray(y, np.float64) for y in results[len(names) :]]
    assert close(after, actual, 5e-3 if found.half else 1e-5), "the outputs have changed"
    for name, value in zip(made.to, results, strict=False):
        expected = (TARGETS, *feeds[name].shape)
        assert value.shape == expected, f"the gradient is {value.shape}, not {expected}"
    return [np.asarray(value, np.float64) for value in results[: len(names)]]


def _checkable(model: onnx.ModelProto) -> bool:
    """Whether onnx can infer what the standard's own model computes."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:
        return False
    return True


def compare(found: Example, made: list[Gradient], rng: np.random.Generator) -> list[Pair]:
    """Compare all gradients with differences at one point."""
    feeds = operands(found, rng)
    run = forward(found)
    actual = run(feeds)
    outputs = found.outputs()
    seeds = {
        of: np.where(np.isfinite(y), rng.normal(size=(TARGETS, *y.shape)).astype(np.float16), 0)
        for of, y in zip(outputs, actual, strict=True)
    }
    size = {
        of: np.abs(y[np.isfinite(y)]).max(initial=0) for of, y in zip(outputs, actual, strict=True)
    }
    pairs: list[Pair] = []
    analytic: dict[str, dict[str, np.ndarray | None]] = {name: {} for name in found.inputs()}
    for g in made:
        if g.refusal:
            pairs += [Pair(g.of, to, REFUSED, g.refusal) for to in g.to]
        elif g.model is None:
            analytic[g.to[0]][g.of] = None
        else:
            try:
                values = computed(g, found, feeds, seeds[g.of], actual)
            except Exception as error:
                kind = NOT_RUNNABLE if found.by_reference else CRASH
                pairs.append(Pair(g.of, ",".join(g.to), kind, str(error)))
                continue
            for name, value in zip(g.to, values, strict=True):
                analytic[name][g.of] = value
    judge = oracle(found, actual, feeds)
    why = "its rounding hides the differences"
    if not close(run(feeds), actual, 1e-6):
        judge, why = None, "it draws at random"
    for name, wanted in analytic.items():
        if judge is None:
            none = {of: NOTHING if g is None else NO_ORACLE for of, g in wanted.items()}
            pairs += [Pair(of, name, none[of], why) for of in wanted]
        else:
            pairs += Probe(judge, outputs, feeds, seeds, name, found.half, rng, size).pairs(wanted)
    return pairs
