"""A browser, and a page of the files in onnxcam/web."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

import onnxcam
from tests.conftest import CARD, small_cnn
from tests.web.browser import METHODS, WEB, chromium, missing, opened, paged, served


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    arguments = [
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ]
    path = chromium()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def modules(browser: Any) -> Iterator[Any]:
    """A blank page that can import the page's scripts by their names."""
    with served(WEB) as address:
        page = browser.new_page()
        page.goto(f"{address}/style.css")
        yield page
        page.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the embedded model."""
    folder = tmp_path_factory.mktemp("site")
    options = {"method": METHODS, "example": onnxcam.default_photograph()}
    paged(onnxcam.default_model(), folder, **options)
    return folder


@pytest.fixture(scope="session")
def site(folder: Path) -> Iterator[str]:
    with served(folder) as address:
        yield address


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network: another page, which is loaded sooner."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "net.toml").write_text(CARD)
    onnx.save(small_cnn(), folder / "net.onnx")
    options = {"method": METHODS[:2], "example": onnxcam.default_photograph()}
    paged(folder / "net.onnx", folder, **options)
    return folder


@pytest.fixture(scope="session")
def small_site(small: Path) -> Iterator[str]:
    with served(small) as address:
        yield address


@pytest.fixture(scope="session")
def small_explainer(small: Path) -> onnxcam.Explainer:
    return onnxcam.Explainer(small / "net.onnx", method=METHODS[:2], providers="cpu")


@pytest.fixture(scope="session")
def explainer() -> onnxcam.Explainer:
    return onnxcam.Explainer(onnxcam.default_model(), method=METHODS, providers="cpu")


@pytest.fixture(scope="module")
def page(browser: Any, site: str) -> Iterator[Any]:
    with opened(browser, site) as page:
        yield page


@pytest.fixture(scope="module")
def small_page(browser: Any, small_site: str) -> Iterator[Any]:
    with opened(browser, small_site) as page:
        yield page
