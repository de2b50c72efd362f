"""The page in Chromium: its heatmaps are Python's, and everything on it works."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import onnxcam
from tests.web.browser import (
    ISOLATED,
    METHODS,
    SMALL,
    WEB,
    answer,
    call,
    give,
    heatmap,
    opened,
    sent,
    served,
)

PHONE = {"width": 360, "height": 740}


def test_from_the_same_tensor_the_heatmaps_are_python_s(page: Any, explainer: Any) -> None:
    rng = np.random.default_rng(5)
    tensor, _ = explainer._inputs.prepare(onnxcam.default_photograph(), explainer.preprocess)
    for array in (tensor, rng.standard_normal((1, 3, 224, 224)).astype(np.float32)):
        numbers = "Array.from(new Float32Array(bytes(data).buffer))"
        body = f"await onnxcam.explainTensor({{ numbers: {numbers}, width: 224, height: 224 }})"
        call(page, body, data=sent(array))
        [top] = {e.target for e in explainer.explain(array)}
        for target in (top, 281):
            for right in explainer.explain(array, target):
                page.evaluate("(target) => onnxcam.choose(target)", target)
                page.locator(f"#method-choices input[value={right.method}]").check()
                assert f"({target})" in page.text_content("#facts")
                found = heatmap(page)
                assert right.heatmap.max() == 1
                np.testing.assert_allclose(found, right.heatmap, atol=1e-3)


def jpeg(**options: Any) -> bytes:
    data = io.BytesIO()
    photo = Image.open(onnxcam.default_photograph()).convert("RGB")
    photo.resize((902, 600)).save(data, "JPEG", quality=90, **options)
    return data.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    return jpeg(exif=exif)


def transparent() -> bytes:
    data = io.BytesIO()
    photo = Image.open(onnxcam.default_photograph()).convert("RGBA")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize("make", [onnxcam.default_photograph, jpeg, turned, transparent])
def test_from_a_photograph_they_correlate(page: Any, explainer: Any, make: Any) -> None:
    picture = make()
    right, *_ = explainer.explain(picture)
    said = give(page, picture)
    page.locator("#method-choices input[value=grad-cam]").check()
    assert said.startswith(f"{right.label}, {right.score:.2f}.")
    height, width, _ = right.photo.shape
    found = heatmap(page, (height, width))
    seen = right.visible
    assert (found[~seen] == 0).all() and found[seen].max() == 1
    assert np.corrcoef(found[seen], right.heatmap[seen])[0, 1] > 0.99
    assert np.abs(found - right.heatmap).max() < 0.15  # resized twice, and another JPEG decoder


def test_classes_by_click_keyboard_and_name(page: Any, explainer: Any) -> None:
    give(page, onnxcam.default_photograph())
    right = [
        e
        for e in explainer.explain(onnxcam.default_photograph(), "top:5")
        if e.method == METHODS[0]
    ]
    rows = page.locator("#choices .choice")
    shown = [row.split("\n") for row in rows.all_inner_texts()]
    assert shown == [[e.label, f"{e.score:.2f}"] for e in right]
    page.locator("#method-choices input[value=grad-cam]").check()
    page.evaluate("document.activeElement.blur()")
    steps = [("Right", 1), ("Right", 2), ("Left", 1), ("Left", 0), ("Left", 4)]  # around the end
    for key, place in steps:
        page.keyboard.press(f"Arrow{key}")
        page.locator("body.started:not(.busy)").wait_for()
        assert answer(page).startswith(f"{right[place].label}, ")
        assert rows.locator(":checked").input_value() == str(right[place].target)
        size = right[place].heatmap.shape
        assert np.corrcoef(heatmap(page, size).ravel(), right[place].heatmap.ravel())[0, 1] > 0.99
    rows.nth(3).click()
    assert answer(page).startswith(right[3].label)
    page.keyboard.press("ArrowUp")  # a group of radio buttons has its own keys
    assert answer(page).startswith(right[2].label)
    page.fill("#wanted", "labrador")
    page.keyboard.press("Enter")
    page.locator("#choices input[value='208']:checked").wait_for()
    assert answer(page).startswith("Labrador retriever")
    page.fill("#wanted", "no such thing")
    page.keyboard.press("Enter")
    assert page.inner_text("#problem") == 'No class is called "no such thing".'


def test_methods_opacity_and_side_by_side_are_kept_in_the_address(
    small_page: Any, small_explainer: Any
) -> None:
    page = small_page
    give(page, onnxcam.default_photograph())
    page.locator("#method-choices input[value=layer-cam]").check()
    page.locator("#choices input").nth(1).check()
    answer(page)
    assert not page.locator("#photo").is_visible()
    page.locator("#side").check()
    assert page.locator("#photo").is_visible()
    page.locator("#opacity").focus()
    page.keyboard.press("ArrowRight")  # moves the slider, not the class
    assert page.inner_text("#percent") == "65 %"
    assert page.eval_on_selector("#heat", "(heat) => heat.style.opacity") == "0.65"
    address, shown = page.url, heatmap(page)
    page.goto("about:blank")
    page.goto(address)
    page.locator("body.ready").wait_for()
    said = give(page, onnxcam.default_photograph())
    second = small_explainer.explain(onnxcam.default_photograph(), "rank:2")[0]
    assert said.startswith(second.label) and "by layer-cam" in said
    np.testing.assert_array_equal(heatmap(page), shown)
    assert page.locator("#photo").is_visible() and page.inner_text("#percent") == "65 %"


GIVEN = """
    const file = new File([bytes(data)], "photo.png", { type: "image/png" });
    const transfer = new DataTransfer();
    transfer.items.add(file);
    const event = kind === "drop"
      ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
      : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
    document.body.dispatchEvent(event);
"""


@pytest.mark.parametrize("kind", ["example", "drop", "paste", "camera"])
def test_photographs_come_from_everywhere(small_page: Any, small_explainer: Any, kind: str) -> None:
    page = small_page
    page.evaluate("document.getElementById('answer').textContent = ''")
    if kind == "example":
        page.get_by_role("button", name="Try the example").click()
    elif kind == "camera":  # Chromium's fake one
        page.get_by_role("button", name="Take a photograph").click()
        page.locator("#video").evaluate("(v) => new Promise((r) => (v.onplaying = r))")
        page.get_by_role("button", name="Take it").click()
    else:
        data = np.frombuffer(onnxcam.default_photograph().read_bytes(), np.uint8)
        call(page, GIVEN, data=sent(data), kind=kind)
    page.locator("#answer:not(:empty)").wait_for()
    if kind == "camera":
        assert not page.locator("dialog").is_visible()
        assert "640 x 480" in page.text_content("#facts")
        return
    best = small_explainer.explain(onnxcam.default_photograph())[0]
    assert answer(page).startswith(f"{best.label}, {100 * best.probability:.0f} %")


def test_what_is_no_picture_is_said(page: Any) -> None:
    page.set_input_files(
        "#file", {"name": "a.txt", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.locator("#problem:not(:empty)").wait_for()
    assert page.inner_text("#problem") == "a.txt is no picture that this browser can read."
    assert give(page, onnxcam.default_photograph()) and page.inner_text("#problem") == ""


def test_the_last_of_two_photographs_counts(small_page: Any) -> None:
    large = io.BytesIO()
    Image.open(onnxcam.default_photograph()).resize((3000, 2000)).save(
        large, "PNG", compress_level=0
    )
    for name, data in (("a.png", large.getvalue()), ("b.png", jpeg())):
        file = {"name": name, "mimeType": "image/png", "buffer": data}
        small_page.set_input_files("#file", file)
    small_page.locator("body.started:not(.busy)").wait_for()
    for _ in range(2):
        assert "b.png 902 x 600" in small_page.text_content("#facts")
        small_page.wait_for_timeout(500)  # the first would be decoded by now


def test_threads_where_the_server_isolates_the_page(
    browser: Any, small: Path, small_explainer: Any
) -> None:
    with served(small, **ISOLATED) as address, opened(browser, address) as page:
        give(page, onnxcam.default_photograph())
        threads = int(re.search(r"on (\d+) thread", page.text_content("#facts"))[1])
        assert threads == min(8, page.evaluate("navigator.hardwareConcurrency")) > 1
        right, *_ = small_explainer.explain(onnxcam.default_photograph())
        found = heatmap(page, right.heatmap.shape)
        assert np.corrcoef(found.ravel(), right.heatmap.ravel())[0, 1] > SMALL


def test_a_missing_model_is_said(browser: Any) -> None:
    with served(WEB) as address:
        page = browser.new_page()
        page.goto(f"{address}/index.html")
        page.locator("#problem:not(:empty)").wait_for()
        assert page.inner_text("#problem") == "page.json: the server answers 404."
        page.close()


NAMELESS = """() => [...document.querySelectorAll("button, input, [role=img], canvas, dialog")]
    .filter((e) => e.checkVisibility() && !e.ariaHidden)
    .filter((e) => !(e.ariaLabel || e.labels?.length || e.textContent.trim()))
    .map((e) => e.outerHTML)"""
# Contrast of every visible text with what is behind it, WCAG 2.2, 1.4.3.
DIM = """() => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const light = (c) => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
    const colour = (text) => text.match(/[\\d.]+/g).map(Number).map((v, n) => (n < 3 ? v / 255 : v));
    const behind = (e) => {
        for (; e; e = e.parentElement) {
            const found = colour(getComputedStyle(e).backgroundColor);
            if (found[3] !== 0) return found;
        }
    };
    const dim = [];
    for (const e of document.querySelectorAll("body *")) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || !e.checkVisibility() || e.matches("noscript, option, :disabled, #boxes *")) continue;
        const backs = [behind(e)];
        const bar = e.parentElement.querySelector(":scope > .bar");
        if (bar) backs.push(colour(getComputedStyle(bar).backgroundColor));
        for (const back of backs) {
            const pair = [light(colour(getComputedStyle(e).color)), light(back)].sort((a, b) => b - a);
            const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
            if (!(ratio >= 4.5)) dim.push([e.textContent.trim(), ratio]);
        }
    }
    return dim;
}"""


def test_phones_dark_mode_and_accessible_names(browser: Any, small_site: str) -> None:
    phone = {"viewport": PHONE, "has_touch": True, "is_mobile": True}
    papers = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 26)"}
    with opened(browser, small_site, **phone) as page:
        for given in (False, True):
            if given:
                give(page, onnxcam.default_photograph())
                page.locator("#side").check()
                page.locator("summary").click()
            for scheme, paper in papers.items():
                page.emulate_media(color_scheme=scheme)
                found = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
                assert found == paper
                assert page.evaluate(DIM) == []
            assert page.evaluate(NAMELESS) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        for box in page.locator("button:visible, .choice:visible").all():
            assert box.bounding_box()["height"] >= 44  # a finger's size
        assert page.get_attribute("#answer", "role") == "status"
        assert page.get_attribute("#problem", "role") == "alert"
