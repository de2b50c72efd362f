"""Random geometry of windows and slices: what hand-picked cases may have missed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from .finite import Case, check

FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much],
)
lengths = st.integers(4, 9)
axes = st.integers(1, 2)


def values(*shape: int) -> np.ndarray:
    """Values that differ by at least 0.05, so that no maximum is near a tie."""
    size = int(np.prod(shape))
    order = np.random.default_rng(size).permutation(size)
    return (order * 0.05 - size * 0.02).reshape(shape)


@st.composite
def windows(draw: Any, space: int, pooling: bool) -> tuple[list[int], dict[str, Any]]:
    """Return the input's lengths and a node's attributes, with at least one window on each axis."""
    shape, attributes = [], {"kernel_shape": [], "strides": [], "dilations": []}
    before, after = [], []
    for _ in range(space):
        kernel, stride, dilation = (draw(st.integers(1, 3)) for _ in range(3))
        extent = dilation * (kernel - 1) + 1
        most = kernel - 1 if pooling else 3
        before.append(draw(st.integers(0, most)))
        after.append(draw(st.integers(0, most)))
        shape.append(draw(lengths))
        assume(shape[-1] + before[-1] + after[-1] >= extent and shape[-1] >= extent // 2)
        attributes["kernel_shape"].append(kernel)
        attributes["strides"].append(stride)
        attributes["dilations"].append(dilation)
    attributes["pads"] = before + after
    return shape, attributes


def compare(case: Case, data: st.DataObject) -> None:
    check(case, data.draw(st.sampled_from([1, 3])), dynamic=data.draw(st.booleans()))


@FEW
@given(st.data())
def test_convolution(data: st.DataObject) -> None:
    space, group = data.draw(axes), data.draw(st.sampled_from([1, 2]))
    shape, attributes = data.draw(windows(space, pooling=False))
    weight = values(2 * group, 2, *attributes["kernel_shape"])
    x = values(2, 2 * group, *shape)
    compare(Case("Conv", [x, weight], {**attributes, "group": group}, wrt=(0, 1)), data)


@FEW
@given(st.data())
def test_transposed_convolution(data: st.DataObject) -> None:
    space = data.draw(axes)
    shape, attributes = data.draw(windows(space, pooling=False))
    sizes = zip(
        shape, *(attributes[k] for k in ("kernel_shape", "strides", "dilations")), strict=True
    )
    pads = attributes["pads"]
    for i, (n, k, s, d) in enumerate(sizes):
        assume(s * (n - 1) + d * (k - 1) + 1 > pads[i] + pads[i + space])
    weight = values(2, 3, *attributes["kernel_shape"])
    compare(
        Case("ConvTranspose", [values(2, 2, *shape), weight], attributes, wrt=(0, 1), linear=True),
        data,
    )


@FEW
@given(st.data())
def test_max_pooling(data: st.DataObject) -> None:
    shape, attributes = data.draw(windows(data.draw(axes), pooling=True))
    compare(Case("MaxPool", [values(2, 2, *shape)], attributes, opset=17), data)


@FEW
@given(st.data())
def test_average_pooling(data: st.DataObject) -> None:
    shape, attributes = data.draw(windows(data.draw(axes), pooling=True))
    attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    compare(Case("AveragePool", [values(2, 2, *shape)], attributes, opset=19), data)


@FEW
@given(st.data())
def test_slices(data: st.DataObject) -> None:
    shape = [data.draw(lengths) for _ in range(3)]
    chosen = data.draw(st.permutations(range(3)))[: data.draw(st.integers(1, 3))]
    bound = st.integers(-12, 12)
    starts, ends = ([data.draw(bound) for _ in chosen] for _ in range(2))
    steps = [data.draw(st.sampled_from([-3, -2, -1, 1, 2, 3])) for _ in chosen]
    picked = [
        range(shape[a])[s:e:p] for a, s, e, p in zip(chosen, starts, ends, steps, strict=True)
    ]
    assume(all(picked))
    operands = [np.array(v, np.int64) for v in (starts, ends, chosen, steps)]
    compare(Case("Slice", [values(*shape), *operands]), data)
