"""Extremal perturbation: its slopes against central differences, and what it finds."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcam.errors import MethodError
from onnxcam.methods.extremal import Blurred, SmoothMasks

from ..conftest import parse
from .networks import IMAGES, explain, network

RNG = np.random.default_rng(4)


def test_slopes_of_masks_are_central_differences() -> None:
    masks = SmoothMasks((22, 30), 4, 7.0)
    cells = RNG.uniform(0.2, 0.8, masks.cells)
    whole = masks.made(cells)
    assert whole.shape == masks.size and whole[masks.inside].shape == (22, 30)
    given = RNG.normal(size=masks.size)
    found, step = masks.slope(given), 1e-2
    for place in [(0, 0), (2, 3), (5, 7), (4, 1)]:
        ends = []
        for sign in (1, -1):
            other = cells.copy()
            other[place] += sign * step
            ends.append((masks.made(other) * given).sum())
        assert found[place] == pytest.approx(np.subtract(*ends) / (2 * step), rel=0.02, abs=2e-3)
    assert np.abs(found).max() > 0.5


def test_masks_are_smooth_maxima_of_the_cells_around() -> None:
    """Fong et al. 2019, eq. 8, written out for one pixel."""
    masks = SmoothMasks((16, 16), 4, 4.0)
    cells = RNG.uniform(size=masks.cells)
    y, x = 6, 9  # of the image
    values = []
    for i in range(-2, 3):
        for j in range(-2, 3):
            row, column = (y + 4) // 4 - 1 + i, (x + 4) // 4 - 1 + j
            there = 0 <= row < 4 and 0 <= column < 4
            far = np.hypot(y - 4 * row, x - 4 * column) / 4
            share = np.exp(-2 * max(far - 0.5, 0) ** 2)
            values.append(share * (cells[row, column] if there else 0))
    weights = np.exp(20 * np.array(values))
    expected = (weights * values).sum() / weights.sum()
    assert masks.made(cells)[masks.inside][y, x] == pytest.approx(expected, rel=1e-5)


def test_slopes_of_blur_are_central_differences() -> None:
    image = RNG.normal(size=(3, 20, 24))
    blurred = Blurred(image, 5.0)
    np.testing.assert_allclose(blurred.mixed(np.ones((20, 24))), image)
    assert blurred.mixed(np.zeros((20, 24))).std() < 0.2 * image.std()
    mask = (RNG.integers(0, 7, (20, 24)) + RNG.uniform(0.2, 0.8, (20, 24))) / 7  # off the kinks
    given, step = RNG.normal(size=image.shape), 1e-3
    ends = [(blurred.mixed(mask + s * step) * given).sum(axis=0) for s in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(blurred.slope(mask, given), expected, rtol=1e-6, atol=1e-9)


def test_it_keeps_what_the_score_reads(save) -> None:
    """The score is the likeness to noise in one corner, which a blur takes away."""
    pattern = np.sign(RNG.normal(size=(3, 32, 32))).astype("f")
    weights = np.zeros((2, 3, 32, 32), np.float32)
    weights[1, :, 4:16, 16:28] = pattern[:, 4:16, 16:28]
    weights[1] = (weights[1] + weights[1, :, :, ::-1]) / 4  # it sees the mirror image too
    image = (pattern + pattern[:, :, ::-1]) / 2
    path = save(
        parse(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float[N,3,32,32] image) => (float[N,2] scores)
            { f = Flatten(image)  scores = Gemm <transB = 1> (f, w) }
            """,
            {"w": weights.reshape(2, -1)},
        )
    )
    method = "extremal-perturbation:area=0.12,steps=250,cell=4,sigma=4,blur=4"
    [[found]] = explain(path, method, image[None], 1)
    mask = found.signed
    read = np.zeros((32, 32), bool)
    read[4:16, 16:28] = read[4:16, 4:16] = True
    far = np.zeros((32, 32), bool)
    far[22:] = True
    assert mask[read].mean() > 0.7 and mask[far].mean() < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("area=1", "area must lie between 0 and 1"),
        ("sigma=0", "sigma and blur be above 0"),
        ("steps=0", "steps = 0 must be"),
    ],
)
def test_numbers_out_of_range(save, options: str, message: str) -> None:
    path = save(network("dense"))
    with pytest.raises(MethodError, match=message):
        explain(path, f"extremal-perturbation:{options}", IMAGES[:1])
