"""What cases alone do not show of indexing: which operators are appended, ties, refusals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxcam
from onnxcam.errors import NoGradientError

from .finite import Case, build, differentiate, session

FLOATS = np.float32


def appended(case: Case, dynamic: bool = False) -> list[str]:
    """Return the operators of the gradient."""
    model = onnx.load_from_string(differentiate(build(case, FLOATS, dynamic), case, 2))
    return [n.op_type for n in model.graph.node[1:]]


@pytest.mark.parametrize(
    ("length", "indices", "expected"),
    [
        (50, np.array(0), {"Pad"}),
        (50, np.array([3, 4, 5]), {"Pad"}),
        (50, np.array([7, 2]), {"Pad", "Gather"}),
        (50, np.arange(50)[::-1].copy(), {"Gather"}),
        (50, np.array([7, 7]), {"OneHot", "MatMul"}),
        (1000, np.array([7, 7]), {"ScatterElements"}),
    ],
)
def test_gather_goes_back_the_cheap_way(length: int, indices: np.ndarray, expected: set) -> None:
    case = Case("Gather", [np.ones((length, 3)), indices], opset=16)
    heavy = {"Pad", "Gather", "OneHot", "MatMul", "ScatterElements"}
    assert set(appended(case)) & heavy == expected


def test_slice_without_a_step_is_padded_whatever_its_axis_measures() -> None:
    case = Case("Slice", [np.ones((4, 5)), np.array([1]), np.array([9]), np.array([1])])
    assert set(appended(case)) == {"Pad", "Identity"}
    assert "ScatterElements" not in appended(case, dynamic=True)


def test_a_long_axis_lifts_the_opset_where_indices_may_repeat() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> graph (float[700, 2] x, int64[3] i) => '
        "(float[3, 2] y) { y = Gather(x, i) }"
    )
    assert onnxcam.add_gradients(model, "y", "x").opset_import[0].version == 16


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_of_equal_extremes_data_comes_before_updates_and_those_in_order(
    op: str, sign: float
) -> None:
    data, updates = np.array([1.0, 5.0, 0.0]) * sign, np.array([5.0, 2.0, 3.0, 2.0, 3.0]) * sign
    indices = np.array([1, 0, 2, 0, 2])
    how = {"reduction": "max" if sign > 0 else "min"}
    places = indices[:, None] if op == "ScatterND" else indices
    case = Case(op, [data, places, updates], how, wrt=(0, 2), opset=18)
    runtime = session(differentiate(build(case, FLOATS, False), case, 1))
    feeds = {"x0": data, "x2": updates, "seed0": np.array([[1.0, 2.0, 4.0]])}
    feeds = {k: v.astype(FLOATS) for k, v in feeds.items()}
    to_data, to_updates = runtime.run(["gradient_x0", "gradient_x2"], feeds)
    np.testing.assert_array_equal(to_data, [[0, 2, 0]])
    np.testing.assert_array_equal(to_updates, [[0, 1, 4, 0, 0]])


def test_top_k_and_unique_give_to_the_first_of_equal_elements() -> None:
    x = np.array([2.0, 7.0, 7.0, 2.0], FLOATS)
    top = Case("TopK", [x, np.array([1])], unread=1)
    runtime = session(differentiate(build(top, FLOATS, False), top, 1))
    [g] = runtime.run(["gradient_x0"], {"x0": x, "seed0": np.array([[3.0]], FLOATS)})
    np.testing.assert_array_equal(g, [[0, 3, 0, 0]])
    unique = Case("Unique", [x])
    runtime = session(differentiate(build(unique, FLOATS, False), unique, 1))
    [g] = runtime.run(["gradient_x0"], {"x0": x, "seed0": np.array([[3.0, 5.0]], FLOATS)})
    np.testing.assert_array_equal(g, [[3, 5, 0, 0]])


def test_refuses_an_inverse_that_the_runtime_cuts_in_its_own_way() -> None:
    settings = {"inverse": 1, "onesided": 1}
    case = Case("DFT", [np.ones((2, 6, 2)), np.array(5)], settings, opset=20)
    with pytest.raises(NoGradientError, match="not known to be that of the spectrum"):
        differentiate(build(case, FLOATS, False), case, 3)


def test_second_derivatives_go_through_what_was_scattered() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 16]> graph (float[3, 4] x, int64[2, 4] i) => '
        "(float[2, 4] y) { a = GatherElements(x, i) y = Mul(a, a) }"
    )
    once = onnxcam.add_gradients(model, "y", "x")
    twice = session(onnxcam.add_gradients(once, "gradient:x", "x").SerializeToString())
    x, i = np.arange(12, dtype=FLOATS).reshape(3, 4), np.array([[0, 1, 2, 0], [0, 0, 2, 1]])
    seeds = {"seed:y": np.ones((1, 2, 4), FLOATS), "seed:gradient:x": np.ones((1, 1, 3, 4), FLOATS)}
    [found] = twice.run(["gradient:x.2"], {"x": x, "i": i, **seeds})
    counts = np.zeros((3, 4))
    np.add.at(counts, (i, np.arange(4)), 2.0)
    np.testing.assert_allclose(found, counts[None])
