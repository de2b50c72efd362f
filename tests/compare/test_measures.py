"""Each measure against SciPy where it is installed, else against NumPy written out."""

from __future__ import annotations

import importlib.util
import itertools

import numpy as np
import pytest

from onnxcam.compare import measures
from onnxcam.compare.measures import ALIKE, BOTH, ONE, compare_maps, compare_scores

SCIPY = importlib.util.find_spec("scipy") is not None


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Maps with ties, zeros and several shapes."""
    rng = np.random.default_rng(3)
    found = []
    for shape in ((7, 7), (5, 9), (12,), (3, 4, 5)):
        a = np.maximum(rng.normal(size=shape), 0)
        b = np.maximum(a + rng.normal(size=shape) * 0.7, 0)
        found.append((a, np.round(b, 1)))
    return found


def slow_ranks(values: np.ndarray) -> np.ndarray:
    flat = values.ravel()
    return np.array([(flat < v).sum() + ((flat == v).sum() + 1) / 2 for v in flat])


def slow_pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize(("a", "b"), pairs())
def test_correlations(a: np.ndarray, b: np.ndarray) -> None:
    linear, ranked = slow_pearson(a, b), slow_pearson(slow_ranks(a), slow_ranks(b))
    if SCIPY:
        from scipy import stats

        assert linear == pytest.approx(stats.pearsonr(a.ravel(), b.ravel()).statistic)
        assert ranked == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic)
        np.testing.assert_array_equal(measures.ranks(a), stats.rankdata(a.ravel()))
    assert measures.pearson(a, b) == pytest.approx(linear)
    assert measures.spearman(a, b) == pytest.approx(ranked)
    np.testing.assert_array_equal(measures.ranks(b), slow_ranks(b))


@pytest.mark.parametrize(("a", "b"), pairs())
def test_differences(a: np.ndarray, b: np.ndarray) -> None:
    x, y = (a / a.max()).ravel().tolist(), (b / b.max()).ravel().tolist()
    right = (sum((p - q) ** 2 for p, q in zip(x, y, strict=True)) / len(x)) ** 0.5
    assert measures.rmse(a, b) == pytest.approx(right)
    hot = {i for i, v in enumerate(x) if v >= 0.15}, {i for i, v in enumerate(y) if v >= 0.15}
    assert 0 < len(hot[0] & hot[1]) < len(hot[0] | hot[1])
    assert measures.region_iou(a, b) == len(hot[0] & hot[1]) / len(hot[0] | hot[1])
    moved = sum(max(0.0, p / sum(x) - q / sum(y)) for p, q in zip(x, y, strict=True))
    assert measures.mass_moved(a, b) == pytest.approx(moved)


def test_the_peak_shift_is_a_fraction_of_the_diagonal() -> None:
    a, b = np.zeros((4, 8)), np.zeros((4, 8))
    a[0, 0] = b[3, 4] = 1
    # Rows are 30 pixels high, columns 10 wide: 3 * 30 down, 4 * 10 right, of 120 by 80.
    right = np.hypot(90, 40) / np.hypot(120, 80)
    assert measures.peak_distance(a, b, (120, 80)) == pytest.approx(right)
    assert measures.peak_distance(a, b, (120, 80)) == measures.peak_distance(b, a, (120, 80))
    b[0, 1] = 1  # of equal peaks the nearest counts
    assert measures.peak_distance(a, b, (120, 80)) == pytest.approx(10 / np.hypot(120, 80))
    corners = np.zeros((100, 100)), np.zeros((100, 100))
    corners[0][0, 0] = corners[1][-1, -1] = 1
    assert measures.peak_distance(*corners, (100, 100)) == pytest.approx(0.99)


def test_a_map_and_itself() -> None:
    for a, _ in pairs():
        status, found = compare_maps(a.astype("f"), 5 * a.astype("f"), a.shape)
        assert status == ALIKE
        assert found["correlation"] == pytest.approx(1) and found["iou"] == 1
        assert found["rank_correlation"] == pytest.approx(1)
        assert [found[k] for k in ("rmse", "peak_shift", "mass_moved")] == pytest.approx(
            [0] * 3, abs=1e-6
        )


def test_maps_of_other_sizes_are_compared_on_the_finer_grid() -> None:
    rows, columns = np.mgrid[:14, :14]
    fine = np.exp(-((rows - 4.5) ** 2 + (columns - 8.5) ** 2) / 18).astype("f")
    coarse = fine.reshape(7, 2, 7, 2).mean((1, 3))
    status, found = compare_maps(fine, coarse, (224, 224))
    assert status == ALIKE and found["correlation"] > 0.98 and found["peak_shift"] < 0.05
    turned = compare_maps(fine, coarse[::-1].copy(), (224, 224))[1]
    assert turned["correlation"] < 0.5 and turned["peak_shift"] > 0.1


EMPTY = [np.zeros((3, 3), "f"), np.ones((3, 3), "f"), np.full((3, 3), np.nan, "f")]


@pytest.mark.parametrize("empty", EMPTY, ids=["zero", "constant", "nan"])
def test_a_map_that_says_nothing_is_a_disagreement(empty: np.ndarray) -> None:
    full = np.arange(9, dtype="f").reshape(3, 3)
    for a, b in ((full, empty), (empty, full)):
        status, found = compare_maps(a, b, (3, 3))
        assert status == ONE and np.isfinite(list(found.values())).all()
        assert (found["correlation"], found["iou"], found["peak_shift"]) == (0, 0, 1)
    for other in EMPTY:
        assert compare_maps(empty, other, (3, 3)) == (BOTH, {})


def test_scores() -> None:
    rng = np.random.default_rng(5)
    a = rng.normal(size=20).astype("f")
    b = a + rng.normal(size=20).astype("f")
    found = compare_scores(a, b)
    order = [sorted(range(20), key=lambda i: (-s[i], i)) for s in (a.tolist(), b.tolist())]
    assert found["agreement"] == (order[0][0] == order[1][0])
    assert found["top5"] == len(set(order[0][:5]) & set(order[1][:5])) / 5
    drift = abs(float(b[order[0][0]]) - float(a[order[0][0]])) / float(np.std(a))
    assert found["score_drift"] == pytest.approx(drift)
    assert compare_scores(a, a) == {"agreement": 1, "top5": 1, "score_drift": 0}
    assert compare_scores(a[:3], a[:3][::-1])["top5"] == 1  # three classes
    ties = np.array([1, 2, 2], "f")
    assert measures.best(ties) == [1, 2, 0]


@pytest.mark.parametrize(
    ("a", "b"), list(itertools.product([[0.0], [2.0]], [[0.0], [3.0]])), ids=str
)
def test_one_number_an_image(a: list[float], b: list[float]) -> None:
    found = compare_scores(np.array(a), np.array(b))
    assert found["agreement"] == 1 and np.isfinite(found["score_drift"])
    assert (found["score_drift"] == 0) == (a == b)
