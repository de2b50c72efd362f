"""The table of methods, and how one is registered, from inside and from outside."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, get_args

import onnxcam.methods
from onnxcam.errors import MethodError, nearest
from onnxcam.methods.base import Method, Space

METHODS: dict[str, Method] = {}
WRAPPERS: dict[str, Callable[[Method], Method]] = {}  # what goes around a method of a layer
_HERE = ("base", "registry")
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


def register(
    name: str,
    citation: str,
    *,
    space: Space = "layer",
    needs: str = "a layer of maps",
    cost: str = "1",
    finish: Callable[..., Any] | None = None,
    drives: bool = False,
    on_device: bool = False,
    proportional: bool = False,
    boxes: bool = False,
    joins: str = "",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as a method.

    The function writes the map into the graph, given a :class:`~onnxcam.surgeon.site.Site`; its
    docstring is the formula. With ``drives=True`` it is given :class:`~onnxcam.methods.base.Runs`
    in place of that. Its parameters with defaults, and those of ``finish``, are the method's.

    Args:
        name: what users call it; a name that is taken is replaced.
        citation: paper and equation.
        space: where its maps lie, ``"layer"`` or ``"input"``.
        needs: what it asks of the model.
        cost: how many forward passes it takes, about.
        finish: makes the map of what the function wrote, on the host.
        drives: whether the function drives many runs.
        on_device: whether ``finish`` takes arrays on the GPU as well.
        proportional: whether its maps are proportional to the score's gradient, so that rounding
            noise can be told by their size.
        boxes: whether it drives runs for a detector's boxes, and for nothing else.
        joins: how its maps of several layers become one, ``"mean"``, ``"max"`` or ``"product"``.

    Raises:
        MethodError: the name could not be typed, the space is unknown, a parameter no number.
    """
    if not _NAME.fullmatch(name):
        raise MethodError(f"method '{name}': a name is of letters, digits, '-', '_', '+', '.'.")
    if space not in get_args(Space):
        raise MethodError(f"method '{name}': space is one of {', '.join(get_args(Space))}.")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = {**_defaults(function), **_defaults(finish)}
        for parameter, value in parameters.items():
            if not isinstance(value, (int, float)):
                raise MethodError(
                    f"method '{name}': the parameter '{parameter}' is {value!r}, not a number."
                )
        METHODS[name] = Method(
            name=name,
            citation=citation,
            formula=(inspect.getdoc(function) or " ").splitlines()[0].rstrip("."),
            space=space,
            write=None if drives else function,
            finish=finish,
            drive=function if drives else None,
            parameters=parameters,
            defaults=parameters,
            needs=needs,
            cost=cost,
            on_device=on_device,
            proportional=proportional,
            boxes=boxes,
            joins=joins,
            builtin=(function.__module__ or "").startswith(f"{onnxcam.methods.__name__}."),
        )
        return function

    return decorate


def _defaults(function: Callable[..., Any] | None) -> dict[str, float]:
    if function is None:
        return {}
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


@cache
def _load() -> None:
    """Import every module of methods, which registers what is in it.

    Methods are in the order of the modules, whichever was imported first, and others behind them.
    """
    place: dict[str, int] = {}
    for module in iter_modules(onnxcam.methods.__path__):
        if module.name not in _HERE:
            name = f"{onnxcam.methods.__name__}.{module.name}"
            import_module(name)
            place[name] = len(place)

    def key(name: str) -> int:
        method = METHODS[name]
        return place.get((method.write or method.drive).__module__, len(place))

    for name in sorted(METHODS, key=key):
        METHODS[name] = METHODS.pop(name)
    for name in sorted(WRAPPERS, key=lambda name: place.get(WRAPPERS[name].__module__, len(place))):
        WRAPPERS[name] = WRAPPERS.pop(name)


def methods() -> dict[str, Method]:
    """Return every method by its name."""
    _load()
    return METHODS


def find_method(wanted: str | Method, **parameters: float) -> Method:
    """Return a method by its name, or ``WRAPPER@METHOD``, with parameters in place of its own.

    Raises:
        MethodError: there is none of that name, or it has no such parameter.
    """
    if isinstance(wanted, Method):
        found = wanted
    else:
        known = methods()
        name, given = _parsed(wanted)
        wrapper, _, inner = name.rpartition("@")
        if wrapper:
            return _around(wrapper, find_method(inner, **{**given, **parameters}))
        if name not in known:
            raise MethodError(
                f"method '{name}': there is none.{nearest(name, known)} 'onnxcam methods' lists "
                "them."
            )
        found, parameters = known[name], {**given, **parameters}
    for parameter in parameters:
        if parameter not in found.parameters:
            has = ", ".join(found.parameters) or "none"
            raise MethodError(
                f"method '{found.name}' has no parameter '{parameter}'; its parameters: {has}."
            )
    return replace(found, parameters={**found.parameters, **parameters})


def _around(wrapper: str, method: Method) -> Method:
    """Return a method with another around it.

    Raises:
        MethodError: there is none of that name, or the method is none of a layer and one run.
    """
    if wrapper not in WRAPPERS:
        raise MethodError(f"'{wrapper}' goes around no method; {', '.join(WRAPPERS)} do.")
    if method.space != "layer" or method.write is None:
        raise MethodError(
            f"method '{wrapper}@{method.name}': it goes around a method of a layer and one run; "
            f"{wrapper}@grad-cam is one."
        )
    return replace(WRAPPERS[wrapper](method), name=f"{wrapper}@{method.name}")


def _parsed(text: str) -> tuple[str, dict[str, float]]:
    """Return name and parameters of ``name:parameter=number,...``."""
    name, _, rest = text.partition(":")
    given: dict[str, float] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        try:
            given[key.strip()] = int(value) if value.strip().lstrip("-").isdigit() else float(value)
        except ValueError as error:
            raise MethodError(
                f"method '{text}': write parameters as name:parameter=number,parameter=number."
            ) from error
        if not equals:
            raise MethodError(f"method '{text}': write parameters as name:parameter=number.")
    return name.strip(), given
