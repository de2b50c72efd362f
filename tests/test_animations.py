"""Animated GIFs are explained frame by frame."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

import onnxcam
from onnxcam.animations import explain_frames
from onnxcam.errors import ImageError
from onnxcam.imaging import frames as frames_module
from onnxcam.imaging.frames import read_frames, write_gif

DURATIONS = [50, 100, 150, 200]


def frames(count: int = 4, seed: int = 0) -> list[Image.Image]:
    """Few colours, which a GIF stores as they are."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (8, 3)).astype(np.uint8)
    every = [colours[rng.integers(0, 8, (6, 10))].repeat(5, 0).repeat(5, 1) for _ in range(count)]
    return [Image.fromarray(pixels) for pixels in every]


def blinds(colour: tuple[int, ...]) -> Image.Image:
    """Rows of a colour on black."""
    pixels = np.zeros((30, 50, 3), np.uint8)
    pixels[::2] = colour
    return Image.fromarray(pixels)


def write(path: Path, pictures: list[Image.Image], **settings: object) -> Path:
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **settings)
    return path


@pytest.fixture
def gif(tmp_path: Path) -> Path:
    return write(tmp_path / "four.gif", frames(), duration=DURATIONS, loop=0)


def test_frames_are_read_as_they_are_seen(gif: Path, tmp_path: Path) -> None:
    found = read_frames(gif)
    assert found is not None and (found.count, found.loop) == (4, 0)
    for (frame, duration), wanted, time in zip(found, frames(), DURATIONS, strict=True):
        assert duration == time
        np.testing.assert_array_equal(np.asarray(frame.convert("RGB")), np.asarray(wanted))
    assert read_frames(write(tmp_path / "one.gif", frames(1))) is None
    assert read_frames(onnxcam.default_photograph()) is None
    once = read_frames(write(tmp_path / "once.gif", frames()))
    assert once is not None and once.loop is None


def test_every_frame_has_the_overlay_of_its_own_explanation(cnn: Path, gif: Path) -> None:
    explainer = onnxcam.Explainer(cnn, method=["grad-cam", "layer-cam"])
    [result] = onnxcam.explain_files(
        explainer, [gif], ["dog", "top:1"], out=gif.parent / "out", arrays=True
    )
    assert result.error is None and len(result.records) == 4
    names = [r["overlay"] for r in result.records]
    assert names[0] == "four-3-dog-grad-cam.gif" and len(set(names)) == 4
    wanted = [explainer.explain(frame, ["dog", "top:1"]) for frame in frames()]
    for place, record in enumerate(result.records):
        with Image.open(gif.parent / "out" / record["overlay"]) as made:
            assert made.info["loop"] == 0 and made.n_frames == 4
            for frame, explanations, time in zip(
                ImageSequence.Iterator(made), wanted, DURATIONS, strict=True
            ):
                right = explanations[place].overlay()
                difference = np.asarray(frame.convert("RGB"), float) - np.asarray(right)
                assert np.abs(difference).mean() < 8  # what 256 colours lose
                assert frame.info["duration"] == time
        with np.load(gif.parent / "out" / record["arrays"]) as arrays:
            assert arrays["frame"].tolist() == [0, 1, 2, 3]
            for signed, explanations in zip(arrays["signed"], wanted, strict=True):
                np.testing.assert_allclose(signed, explanations[place].signed, atol=1e-5)
        scores = [f["score"] for f in record["frames"]]
        np.testing.assert_allclose(scores, [e[place].score for e in wanted], rtol=1e-5)
        assert [f["target"] for f in record["frames"]] == [e[place].target for e in wanted]
        assert record["image"] == str(gif)
    document = json.loads((gif.parent / "out" / "explanations.json").read_text())
    assert document["images"][0]["explanations"] == result.records


def test_where_the_predicted_class_changes_its_rank_is_in_the_name(
    cnn: Path, tmp_path: Path
) -> None:
    explainer = onnxcam.Explainer(cnn)
    colours = itertools.product((0, 255), repeat=3)
    by_class = {explainer.explain(f)[0].target: f for f in map(blinds, colours)}
    assert len(by_class) > 1
    gif = write(tmp_path / "two.gif", list(by_class.values()))
    [result] = onnxcam.explain_files(explainer, [gif], out=tmp_path / "out")
    [record] = result.records
    assert record["overlay"] == "two-top-1.gif"
    assert [f["target"] for f in record["frames"]] == list(by_class)


def test_a_single_frame_is_a_photograph(cnn: Path, tmp_path: Path) -> None:
    gif = write(tmp_path / "one.gif", frames(1))
    explainer = onnxcam.Explainer(cnn)
    [result] = onnxcam.explain_files(explainer, [gif], "dog", out=tmp_path / "out")
    assert [r["overlay"] for r in result.records] == ["one-3-dog.jpg"]
    assert "frames" not in result.records[0]


def test_damaged_and_large_ones_are_told(cnn: Path, gif: Path, monkeypatch) -> None:
    explainer = onnxcam.Explainer(cnn)
    cut = gif.with_name("cut.gif")
    cut.write_bytes(gif.read_bytes()[: gif.stat().st_size * 3 // 4])
    [result] = onnxcam.explain_files(explainer, [cut], out=gif.parent / "out")
    assert result.error is not None and "cut.gif" in result.error
    assert "cannot be decoded" in result.error and not (gif.parent / "out").exists()
    monkeypatch.setattr(frames_module, "MOST_PIXELS", 4 * 30 * 50 - 1)
    [result] = onnxcam.explain_files(explainer, [gif], out=gif.parent / "out")
    assert "4 frames of 50x30 are more than 5,999 pixels" in str(result.error)
    shorter = write(gif.with_name("short.gif"), frames(3))  # the way out
    [result] = onnxcam.explain_files(explainer, [shorter], out=gif.parent / "out")
    assert result.error is None
    with pytest.raises(ImageError, match="frame 3 of 4 cannot be decoded"):
        list(frames_module.Frames(cut, 4, 0))


def test_pictures_of_different_sizes(tmp_path: Path) -> None:
    pictures = [frames_module.quantized(p) for p in (frames()[0], frames()[1].resize((60, 20)))]
    path = tmp_path / "sizes.gif"
    with path.open("wb") as file:
        write_gif(file, pictures, [50, 50], 0)
    first, second = (np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(Image.open(path)))
    assert first.shape == second.shape == (30, 60, 3)
    np.testing.assert_array_equal(first[:30, :50], np.asarray(frames()[0]))
    assert (second[20:] == 255).all() and (first[:, 50:] == 255).all()


def test_frames_with_fewer_explanations_show_the_frame(cnn: Path, gif: Path) -> None:
    """As a detector's boxes come and go."""
    explainer = onnxcam.Explainer(cnn)
    counts = [1, 3, 0, 2]
    left = iter(counts)
    found = read_frames(gif)
    assert found is not None
    made = explain_frames(lambda f: explainer.explain(f, "top:3")[: next(left)], found, True)
    assert len(made) == max(counts)
    for place, animation in enumerate(made):
        has = [n > place for n in counts]
        assert [r["frame"] for r in animation.records] == [i for i, yes in enumerate(has) if yes]
        assert len(animation.arrays) == sum(has) and len(animation.pictures) == 4
        for picture, frame, yes in zip(animation.pictures, frames(), has, strict=True):
            same = np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(frame))
            assert same != yes
    assert explain_frames(lambda _: [], found, True) == []
