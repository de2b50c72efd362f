"""Mistakes in a method of one's own are told by its name."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import onnxcam
from onnxcam.errors import MethodError, NotFiniteError
from onnxcam.methods.registry import METHODS, WRAPPERS, methods, register

from ..conftest import small_cnn

IMAGE = np.random.default_rng(8).normal(size=(3, 16, 16)).astype("f")
NAME = "made-up"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    METHODS.pop(NAME, None)


def explained(save: Callable[..., Any], function: Callable[..., Any], **options: Any) -> Any:
    register(NAME, "", **options)(function)
    return onnxcam.Explainer(save(small_cnn()), method=NAME, preprocess="unit").explain(IMAGE)


def nothing(s: Any) -> None:
    s.pooled()


MISTAKES: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "nothing": (nothing, {}, "returned NoneType; a method returns a term"),
    "relu": (lambda s: s.relu(s.weighted(s.pooled())), {}, r"s.weighted\(w, relu=True\)"),
    "no map": (lambda s: {"a": s.gradient()}, {}, "gives a; without 'finish' it must give its map"),
    "finish": (lambda s: {"a": s.gradient()}, {"finish": lambda a: None}, "returned NoneType"),
    "weights": (lambda s: s.pooled(), {}, "gave maps of shape .*has 2 spatial axes"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_the_methods_name(name: str, save) -> None:
    function, options, message = MISTAKES[name]
    with pytest.raises(MethodError, match=message) as error:
        explained(save, function, **options)
    assert f"method '{NAME}'" in str(error.value)


def test_what_is_not_finite_names_the_method(save) -> None:
    with pytest.raises(NotFiniteError, match=f"the maps of '{NAME}' are not finite"):
        explained(save, lambda s: {"a": s.gradient()}, finish=lambda a: a["a"][:, :, 0] * np.nan)


@pytest.mark.parametrize(
    ("name", "options"), [("a:b", {}), ("a b", {}), (NAME, {"space": "pixel"})]
)
def test_what_cannot_be_registered(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match="a name is of|space is one of"):
        register(name, "", **options)


def test_parameters_are_numbers() -> None:
    with pytest.raises(MethodError, match="'mode' is 'x', not a number"):
        register(NAME, "")(lambda s, mode="x": s.gradient())


def test_the_mean_over_space(save) -> None:
    [[found]] = [explained(save, lambda s: s.weighted(s.mean_space(s.gradient())))]
    explainer = onnxcam.Explainer(save(small_cnn()), preprocess="unit")
    expected = explainer.explain(IMAGE)[0].signed
    np.testing.assert_allclose(found.signed, expected, rtol=1e-4, atol=1e-7)


def test_the_order_is_that_of_the_modules_whichever_was_imported_first() -> None:
    script = """
        import onnxcam.methods.wrappers, onnxcam.methods.others
        from onnxcam.methods.registry import WRAPPERS, methods
        print(*methods(), *WRAPPERS)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [*methods(), *WRAPPERS]
    assert next(iter(methods())) == "grad-cam"
