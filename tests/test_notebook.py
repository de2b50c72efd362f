"""Explanations in notebooks: pictures, HTML, figures."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image, ImageShow

import onnxcam
from onnxcam.errors import PictureError
from onnxcam.notebook import LONGEST, Explanations

PHOTO = np.random.default_rng(0).integers(0, 256, (30, 50, 3)).astype(np.uint8)


class Text(HTMLParser):
    """Collects the text of a page, and its pictures' attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.images, self.open = "", [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes) -> None:
        if tag == "img":
            self.images.append(dict(attributes))
        elif tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data + "\n"


@pytest.fixture
def explainer(cnn) -> onnxcam.Explainer:
    return onnxcam.Explainer(cnn)


def test_the_png_is_the_overlay(explainer) -> None:
    [found] = explainer.explain(PHOTO)
    picture = Image.open(io.BytesIO(found._repr_png_()))
    assert picture.format == "PNG"
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(found.overlay()))
    [large] = explainer.explain(np.tile(PHOTO, (60, 30, 1)))
    assert Image.open(io.BytesIO(large._repr_png_())).size == (
        round(LONGEST * 1500 / 1800),
        LONGEST,
    )


def test_the_html_says_what_is_shown(explainer) -> None:
    [found] = explainer.explain(PHOTO, "dog")
    page = Text(found._repr_html_())
    for text in ("dog", f"{found.score:.4f}", "grad-cam", "r2"):
        assert text in page.text
    [image] = page.images
    data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    assert data == found._repr_png_()
    colours = re.findall(r"(?<![-\w])(?:color|background)\s*:", found._repr_html_())
    assert colours == []  # what the notebook's own light or dark style says is kept


def test_names_are_escaped(cnn) -> None:
    labels = ["<script>", '"a"', "&amp;", "d", "e"]
    for found in onnxcam.Explainer(cnn, labels=labels).explain(PHOTO, [0, 1, 2]):
        page = Text(found._repr_html_())
        assert page.text.startswith(f"{found.label} {found.score:.4f}")
        assert page.images[0]["alt"] == f"{found.label} {found.score:.4f}"


def test_a_list_is_a_list_and_a_page(explainer) -> None:
    found = explainer.explain(PHOTO, "top:3")
    assert isinstance(found, list) and isinstance(found, Explanations) and len(found) == 3
    assert len(Text(found._repr_html_()).images) == 3
    [first, second] = explainer.explain_batch([PHOTO, PHOTO[::-1]])
    assert [type(e) for e in (first, second)] == [Explanations] * 2
    assert Text(Explanations()._repr_html_()).images == []


@pytest.mark.parametrize("several", [False, True])
def test_show_opens_a_viewer_or_says_how_to_save(explainer, monkeypatch, several) -> None:
    found = explainer.explain(PHOTO, "top:2")
    shown = found if several else found[0]
    opened: list[Image.Image] = []

    class Viewer(ImageShow.Viewer):
        def show(self, image, **options) -> bool:
            opened.append(image)
            return True

    monkeypatch.setattr(ImageShow, "_viewers", [Viewer()])
    shown.show()
    wanted = [e.overlay() for e in found][: len(opened)]
    assert len(opened) == (2 if several else 1) and opened == wanted
    monkeypatch.setattr(ImageShow, "_viewers", [])
    with pytest.raises(PictureError, match=r"\.save\('overlay.png'\)"):
        shown.show()


def test_figures_of_matplotlib(explainer, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    found = explainer.explain(PHOTO, "top:5")
    figure = found[0].figure()
    picture, bar = figure.axes
    np.testing.assert_array_equal(picture.images[0].get_array(), np.asarray(found[0].overlay()))
    assert picture.get_title() == f"{found[0].label} {found[0].score:.4f}\ngrad-cam at r2"
    assert bar.get_ylim() == (0, 1)
    many = found.figure()
    assert sum(bool(axes.images) for axes in many.axes) == 5
    many.savefig(tmp_path / "many.png")
    assert len(set(np.asarray(Image.open(tmp_path / "many.png")).reshape(-1).tolist())) > 50
    with pytest.raises(PictureError, match="empty"):
        Explanations().figure()


def test_a_figure_without_matplotlib_is_a_clear_error(explainer, monkeypatch) -> None:
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    [found] = explainer.explain(PHOTO)
    with pytest.raises(PictureError, match="pip install matplotlib"):
        found.figure()


def test_dir_lists_what_is_imported_on_first_use() -> None:
    code = "import onnxcam; assert set(onnxcam.__all__) <= set(dir(onnxcam)); print(dir(onnxcam))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Explainer" in done.stdout
    assert all(hasattr(onnxcam, name) for name in dir(onnxcam))
