"""Short videos are explained frame by frame."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

import onnxcam
from onnxcam.errors import ImageError
from onnxcam.imaging import video
from onnxcam.imaging.frames import read_frames

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 30, 50, 3)).astype(np.uint8)


def write(path: Path, pictures: np.ndarray, rate: int = 5) -> Path:
    """Store pictures without loss: PNGs in QuickTime's container."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=rate)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "rgb24"
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turned(path: Path) -> Path:
    """Have players turn a video clockwise: the matrix of its track header, ISO 14496-12 8.3.2."""
    one = 1 << 16
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    data = path.read_bytes()
    start = data.index(plain, data.index(b"tkhd"))
    matrix = struct.pack(">9i", 0, one, 0, -one, 0, 0, 30 * one, 0, 1 << 30)
    path.write_bytes(data[:start] + matrix + data[start + len(plain) :])
    return path


def test_frames_and_durations(tmp_path: Path) -> None:
    found = list(read_frames(write(tmp_path / "a.mov", PICTURES)))
    assert [duration for _, duration in found] == [200] * 6
    for (frame, _), pixels in zip(found, PICTURES, strict=True):
        np.testing.assert_array_equal(np.asarray(frame), pixels)


def test_ten_frames_a_second_are_taken(tmp_path: Path) -> None:
    found = list(read_frames(write(tmp_path / "a.mov", PICTURES, rate=20)))
    assert [duration for _, duration in found] == [100] * 3
    for (frame, _), pixels in zip(found, PICTURES[::2], strict=True):
        np.testing.assert_array_equal(np.asarray(frame), pixels)


def test_frames_stand_upright(tmp_path: Path) -> None:
    found = list(read_frames(turned(write(tmp_path / "a.mov", PICTURES))))
    for (frame, _), pixels in zip(found, PICTURES, strict=True):
        np.testing.assert_array_equal(np.asarray(frame), np.rot90(pixels, -1))


def test_a_video_becomes_a_gif_of_overlays(cnn: Path, tmp_path: Path) -> None:
    explainer = onnxcam.Explainer(cnn)
    path = write(tmp_path / "a.mov", PICTURES)
    [result] = onnxcam.explain_files(explainer, [path], "dog", out=tmp_path / "out")
    [record] = result.records
    assert record["overlay"] == "a-3-dog.gif"
    scores = [explainer.explain(Image.fromarray(p), "dog")[0].score for p in PICTURES]
    np.testing.assert_allclose([f["score"] for f in record["frames"]], scores, rtol=1e-5)
    with Image.open(tmp_path / "out" / "a-3-dog.gif") as made:
        assert [f.info["duration"] for f in ImageSequence.Iterator(made)] == [200] * 6


def test_what_is_no_video_or_too_long_is_told(cnn: Path, tmp_path: Path, monkeypatch) -> None:
    explainer = onnxcam.Explainer(cnn)
    path = write(tmp_path / "a.mov", PICTURES)
    (tmp_path / "text.mp4").write_text("no video")
    results = onnxcam.explain_files(explainer, [tmp_path / "text.mp4", path], out=tmp_path / "out")
    errors = [r.error for r in results]
    assert "text.mp4: cannot be decoded as a video" in str(errors[0]) and errors[1] is None
    monkeypatch.setattr(video, "MOST_PIXELS", 5 * 30 * 50)
    with pytest.raises(ImageError, match=r"1\.0 seconds of 50x30 are more than 7,500 pixels"):
        list(read_frames(path))
    assert len(list(read_frames(write(tmp_path / "b.mov", PICTURES[:5])))) == 5  # the way out


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"whatever")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImageError, match=r"pip install 'onnxcam\[video\]'"):
        list(read_frames(tmp_path / "a.mp4"))
