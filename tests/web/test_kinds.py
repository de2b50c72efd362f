"""Pages of other models: detectors, fixed targets, photographs prepared by the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnxcam
from onnxcam.imaging.preprocess import Preprocess
from tests.conftest import CARD, small_cnn
from tests.test_boxes import ultralytics_style
from tests.web.browser import SMALL, answer, give, heatmap, opened, paged, served


def made(tmp_path: Path, model: onnx.ModelProto, card: str = CARD, **options: Any) -> Path:
    (tmp_path / "net.toml").write_text(card)
    onnx.save(model, tmp_path / "net.onnx")
    paged(tmp_path / "net.onnx", tmp_path / "web", **options)
    return tmp_path / "net.onnx"


def test_boxes_are_clicked(browser: Any, tmp_path: Path) -> None:
    model = made(tmp_path, ultralytics_style(), "")
    explainer = onnxcam.Explainer(model)
    photograph = onnxcam.default_photograph()
    [first, *_] = explainer.explain(photograph)
    every = first.detected.every
    assert len(every) >= 2
    with served(tmp_path / "web") as address, opened(browser, address) as page:
        said = give(page, photograph)
        assert said.startswith(f"{first.detected.one.name}, {100 * every[0].probability:.0f} %")
        buttons = page.locator("#boxes button")
        names = [f"{d.name}, {100 * d.probability:.0f} %" for d in every]
        found = [b.get_attribute("aria-label") for b in buttons.all()]
        assert sorted(found) == sorted(names)
        picture = page.locator("#seen").bounding_box()
        scale = picture["width"] / first.photo.shape[1]
        for n in (1, 0):
            button = page.locator(f"#boxes button[value='{every[n].anchor}']")
            box = button.bounding_box()
            left, top, right, bottom = (v * scale for v in every[n].box)
            place = box["x"] - picture["x"], box["y"] - picture["y"], box["width"], box["height"]
            np.testing.assert_allclose(place, [left, top, right - left, bottom - top], atol=1)
            button.dispatch_event("click")
            page.locator("body.started:not(.busy)").wait_for()
            assert button.get_attribute("aria-pressed") == "true"
            [one] = explainer.explain(photograph, f"box:{n}")
            assert answer(page).startswith(names[n])
            right_map, seen = one.heatmap, one.visible
            shown = heatmap(page, right_map.shape)
            assert np.corrcoef(shown[seen], right_map[seen])[0, 1] > SMALL
        button.focus()
        page.keyboard.press("ArrowRight")
        page.locator("body.started:not(.busy)").wait_for()
        active = page.evaluate("document.activeElement.value")
        assert active == str(every[1].anchor)


def test_targets_that_the_file_fixes(browser: Any, tmp_path: Path) -> None:
    """With maps at the layer's size, which are resized once, as in Python."""
    targets = ["dog - bee", "ant - bee"]
    model = made(tmp_path, small_cnn(), targets=targets, raw=True)
    explainer = onnxcam.Explainer(model)
    with served(tmp_path / "web") as address, opened(browser, address) as page:
        give(page, onnxcam.default_photograph())
        assert not page.locator("#another").is_visible()
        for n, target in enumerate(targets):
            page.locator("#choices input").nth(n).check()
            [right] = explainer.explain(onnxcam.default_photograph(), target)
            assert answer(page).startswith(f"{target}, {right.score:.2f}")
            found = heatmap(page, right.heatmap.shape)
            np.testing.assert_allclose(found, right.heatmap, atol=1e-4)


def test_a_model_that_prepares_photographs(browser: Any, tmp_path: Path) -> None:
    card = CARD.replace("divide", "resize = 'shorter'\ndivide")
    model = made(tmp_path, small_cnn(), card, with_preprocessing=True)
    explainer = onnxcam.Explainer(model)
    assert explainer.preprocess == Preprocess(
        resize="shorter", size=(16, 16), divide=255.0, mean=(0.5,)
    )
    with served(tmp_path / "web") as address, opened(browser, address) as page:
        said = give(page, onnxcam.default_photograph())
        [right] = explainer.explain(onnxcam.default_photograph())
        assert said.startswith(f"{right.label}, ")
        found = heatmap(page)
        assert found.shape == right.heatmap.shape
        np.testing.assert_allclose(found, right.heatmap, atol=0.02)
