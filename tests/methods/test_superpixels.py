"""Superpixels, and Shapley values over them, against their definitions."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

import onnxcam
from onnxcam.errors import MethodError
from onnxcam.methods.superpixels import drawn_orders, exact, superpixels

from .networks import IMAGES, explain, network

SETTINGS = "segments=6,compactness=0.5,value=0.1"


def score(explainer: onnxcam.Explainer, image: np.ndarray, subset: object, labels: np.ndarray):
    kept = np.isin(labels, list(subset))
    [found] = explainer.explain(np.where(kept, image, np.float32(0.1)), 2)
    return found.score


@pytest.fixture
def path(save):
    return save(network("dense"))


def test_shapley_values_of_few_superpixels_are_means_over_all_orders(path) -> None:
    """By brute force, from one run a subset of the plain model; and they add up (efficiency)."""
    image = IMAGES[0]
    labels = superpixels("shapley", image, 6, 0.5)
    count = labels.max() + 1
    assert 4 <= count <= 6
    plain = onnxcam.Explainer(path, preprocess="unit")
    y = {
        frozenset(s): score(plain, image, s, labels)
        for size in range(count + 1)
        for s in combinations(range(count), size)
    }
    expected = np.zeros(count)
    orders = list(permutations(range(count)))
    for order in orders:
        for n, i in enumerate(order):
            expected[i] += y[frozenset(order[: n + 1])] - y[frozenset(order[:n])]
    expected /= len(orders)
    [[found]] = explain(path, f"shapley:{SETTINGS},samples=30", IMAGES[:1], 2)
    assert np.abs(found.signed - expected[labels]).max() < 1e-5 * np.abs(expected).max()
    whole = y[frozenset(range(count))] - y[frozenset()]
    assert expected.sum() == pytest.approx(whole, rel=1e-4) and abs(whole) > 0.01

    [[sampled]] = explain(path, f"shapley:{SETTINGS},samples=4", IMAGES[:1], 2)
    first = [np.argmax(labels.reshape(-1) == i) for i in range(count)]
    values = sampled.signed.reshape(-1)[first]
    assert values.sum() == pytest.approx(whole, rel=1e-4)
    assert np.abs(values - expected).max() > 1e-3 * np.abs(expected).max()  # not all orders
    [[more]] = explain(path, f"feature-ablation:{SETTINGS}", IMAGES[:1], 2)
    alone = [y[frozenset(range(count))] - y[frozenset(range(count)) - {i}] for i in range(count)]
    np.testing.assert_allclose(
        more.signed, np.array(alone)[labels], atol=1e-5 * np.abs(alone).max()
    )


def test_many_orders_come_near_the_exact_values(path) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(2**8, 2))
    right = exact(y)
    np.testing.assert_allclose(right.sum(axis=0), y[-1] - y[0])
    errors = []
    for samples in (20, 2000):
        orders = drawn_orders(samples, 8, 1)
        found = np.zeros((8, 2))
        for order in orders:
            rows = np.concatenate([[0], np.cumsum(1 << order)])
            found[order] += np.diff(y[rows], axis=0) / samples
        errors.append(np.abs(found - right).max())
    assert errors[1] < 0.2 * errors[0] and errors[1] < 0.1


def test_one_order_and_the_same_backwards_are_exact_where_no_three_act_together() -> None:
    rng = np.random.default_rng(2)
    linear, pairs = rng.normal(size=7), np.triu(rng.normal(size=(7, 7)), 1)
    there = (np.arange(2**7)[:, None] >> np.arange(7) & 1).astype(float)
    y = there @ linear + ((there @ pairs) * there).sum(axis=1)
    found = np.zeros(7)
    for order in drawn_orders(2, 7, 5):
        found[order] += np.diff(y[np.concatenate([[0], np.cumsum(1 << order)])]) / 2
    np.testing.assert_allclose(found, exact(y))
    assert np.abs(found - linear).max() > 0.1


@pytest.mark.parametrize("space", [(40,), (24, 36), (9, 10, 11)])
def test_superpixels_follow_edges_and_are_about_as_many_as_asked_for(space) -> None:
    image = np.zeros((2, *space), np.float32)
    edge = np.sum(np.indices(space), axis=0) > 0.45 * sum(space)
    image[1, edge] = 3.0
    labels = superpixels("shapley", image, 12, 0.3)
    count = int(labels.max()) + 1
    assert set(np.unique(labels)) == set(range(count)) and 6 <= count <= 16
    mixed = sum(0.05 < edge[labels == n].mean() < 0.95 for n in range(count))
    grid = superpixels("shapley", image, 12, 1e6)
    assert mixed == 0 < sum(0.05 < edge[grid == n].mean() < 0.95 for n in range(grid.max() + 1))


def test_superpixels_of_a_flat_image_are_a_grid() -> None:
    labels = superpixels("shapley", np.zeros((3, 20, 30), np.float32), 6, 0.5)
    expected = np.arange(2)[:, None] * 3 + np.arange(3)
    assert (labels == np.kron(expected, np.ones((10, 10)))).all()
    assert (superpixels("shapley", np.zeros((3, 4, 4), np.float32), 100, 0.5).max()) == 15


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("shapley:segments=0", "segments = 0 must be"),
        ("shapley:samples=1.5", "samples = 1.5 must be"),
        ("feature-ablation:compactness=0", "compactness = 0 must be above 0"),
    ],
)
def test_numbers_out_of_range(path, method: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        explain(path, method, IMAGES[:1])
