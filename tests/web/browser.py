"""What the tests of the page share: a web server, Chromium, arrays there and back."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import onnxcam

WEB = Path(__file__).resolve().parents[2] / "onnxcam" / "web"
REQUIRED = os.environ.get("ONNXCAM_WEB_TESTS") == "required"  # the gate may not skip them
METHODS = ["grad-cam", "layer-cam", "hires-cam"]
# A small network's map of 8 x 8 is resized to 16 x 16 before it is to the photograph; Python resizes once.
SMALL = 0.97
ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


def missing(reason: str) -> Any:
    """Skip, or fail where these tests are required."""
    (pytest.fail if REQUIRED else pytest.skip)(reason)


def chromium() -> str:
    """Return the path of the browser: ``$ONNXCAM_CHROMIUM``, or a Chromium that is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("ONNXCAM_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    return found or missing("no chromium is installed")


def runtime() -> Path:
    """Return the folder of onnxruntime-web's files: ``$ONNXCAM_ORT_WEB``, or in node_modules."""
    places = [os.environ.get("ONNXCAM_ORT_WEB", ""), "node_modules/onnxruntime-web/dist"]
    for place in filter(None, places):
        if (Path(place) / "ort-wasm-simd-threaded.wasm").is_file():
            return Path(place)
    return missing("no onnxruntime-web: npm install onnxruntime-web, or set ONNXCAM_ORT_WEB")


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }
    headers_too: ClassVar[dict[str, str]] = {}

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def end_headers(self) -> None:
        for name, value in self.headers_too.items():
            self.send_header(name, value)
        super().end_headers()


@contextmanager
def served(folder: Path, **headers: str) -> Iterator[str]:
    """Serve a folder; give its address."""
    handler = type("Handler", (_Handler,), {"headers_too": headers})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sent(array: np.ndarray) -> str:
    """Return an array's bytes for :data:`FROM_PYTHON`."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def received(text: str, dtype: str) -> np.ndarray:
    """Return the array that :data:`TO_PYTHON` made text of."""
    return np.frombuffer(base64.b64decode(text), dtype)


def call(page: Any, body: str, **arguments: Any) -> Any:
    """Run JavaScript, the body of an async function that is given ``bytes``, ``text``, arguments."""
    helpers = """
        const bytes = (t) => Uint8Array.from(atob(t), (c) => c.charCodeAt(0));
        const text = (array) => {
          const all = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
          let out = "";
          for (let i = 0; i < all.length; i += 8192) {
            out += String.fromCharCode(...all.subarray(i, i + 8192));
          }
          return btoa(out);
        };
    """
    names = ", ".join(arguments)
    return page.evaluate(f"async ({{{names}}}) => {{ {helpers} {body} }}", arguments)


def plain(data: Any) -> Any:
    """Return dataclasses' data as JSON has it: tuples are lists."""
    return json.loads(json.dumps(data))


def paged(model: Path, folder: Path, **options: Any) -> onnxcam.portable.Exported:
    """Write the page of a model."""
    from onnxcam.web_page import export_page

    out = folder / f"{model.stem}.cam.onnx"
    return export_page(model, out, folder=folder, runtime=runtime(), **options)


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """Open a page and wait for its model; nothing may be fetched elsewhere or go wrong unseen."""
    page = browser.new_page(**options)
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on(
        "request", lambda r: r.url.startswith((address, "blob:", "data:")) or wrong.append(r.url)
    )
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: m.type == "error" and wrong.append(m.text))
    page.goto(f"{address}/")
    page.locator("body.ready").wait_for()
    yield page
    page.close()
    assert wrong == []


def give(page: Any, picture: bytes | Path, name: str = "photo.png") -> str:
    """Choose a photograph as a user does, and return what the page says of it."""
    file = (
        picture if isinstance(picture, Path) else {"name": name, "mimeType": "", "buffer": picture}
    )
    page.evaluate("document.getElementById('answer').textContent = ''")
    page.set_input_files("#file", file)
    page.locator("#answer:not(:empty)").wait_for()
    return answer(page)


def answer(page: Any) -> str:
    page.locator("body.started:not(.busy)").wait_for()
    return page.inner_text("#answer")


def heatmap(page: Any, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the map that is shown, in the input's size or on a photograph of (height, width)."""
    body = """
        const map = onnxcam.heatmap;
        const heat = size ? onnxcam.onPhotograph(map, size[1], size[0]) : map;
        return [text(Float32Array.from(heat.data)), heat.height, heat.width];
    """
    data, height, width = call(page, body, size=size)
    return received(data, "float32").reshape(height, width)
