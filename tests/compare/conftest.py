"""Photographs, and models in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from ..conftest import CARD
from .models import cnn


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Twelve smooth pictures with one bright place each."""
    return make_photos(tmp_path / "photos")


def make_photos(folder: Path) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[:48, :48]
    found = []
    for number in range(12):
        y, x = rng.uniform(8, 40, 2)
        size = rng.uniform(60, 300)
        spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / size)[..., None]
        pixels = 40 + 200 * spot * rng.uniform(0.2, 1, 3) + 10 * rng.uniform(size=3)
        path = folder / f"{number:02}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        found.append(path)
    return found


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write a model, with a card where it is asked for."""

    def write(model: onnx.ModelProto, name: str, card: bool = False) -> Path:
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        if card:
            path.with_suffix(".toml").write_text(CARD)
        return path

    return write


@pytest.fixture
def reference(put: Callable[..., Path]) -> Path:
    return put(cnn(), "reference.onnx", card=True)
