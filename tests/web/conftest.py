"""A browser, and a page of the files in onnxcam/web."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.web.browser import WEB, chromium, missing, served


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    arguments = [
        "--no-sandbox",
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
