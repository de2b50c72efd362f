"""A working directory for the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxcam.cli import main

from ..conftest import CARD, small_cnn

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 50, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model, its card and two photographs."""
    (tmp_path / "model.onnx").write_bytes(small_cnn().SerializeToString())
    (tmp_path / "model.toml").write_text(CARD)
    (tmp_path / "photos" / "more").mkdir(parents=True)
    Image.fromarray(PIXELS).save(tmp_path / "photos" / "a.png")
    Image.fromarray(PIXELS[::-1]).save(tmp_path / "photos" / "more" / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["onnxcam", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
            sys.exit(0)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return int(stop.value.code or 0), out, err

    return run
