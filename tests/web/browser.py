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

WEB = Path(__file__).resolve().parents[2] / "onnxcam" / "web"
REQUIRED = os.environ.get("ONNXCAM_WEB_TESTS") == "required"  # the gate may not skip them
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
