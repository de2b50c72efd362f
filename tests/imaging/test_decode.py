"""Every kind of image file that people have."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from onnxcam.errors import ImageError
from onnxcam.imaging.decode import decode

RAMP = np.linspace(0, 255, 40 * 30 * 3).reshape(30, 40, 3).astype(np.uint8)


def test_exif_orientation(tmp_path) -> None:
    path = tmp_path / "turned.jpg"
    image = Image.fromarray(RAMP)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    image.save(path, exif=exif, quality=95)
    found = decode(path)
    assert found.shape == (40, 30, 3)
    upright = np.rot90(RAMP, -1).astype(int)
    assert np.abs(found.astype(int) - upright).mean() < 4


def test_modes(tmp_path) -> None:
    rgb = Image.fromarray(RAMP)
    grey = rgb.convert("L")
    for name, image in {
        "palette.png": rgb.quantize(256),
        "grey.png": grey,
        "bit.png": grey.convert("1"),
        "cmyk.tif": rgb.convert("CMYK"),
        "ycbcr.jpg": rgb,
        "la.png": grey.convert("LA"),
    }.items():
        image.save(tmp_path / name)
        found = decode(tmp_path / name)
        assert found.shape == (30, 40, 3) and found.dtype == np.uint8, name
    assert np.abs(decode(tmp_path / "cmyk.tif").astype(int) - RAMP).mean() < 3


def test_transparency_is_laid_on_white(tmp_path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = [255, 0, 0, 255]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png")
    assert (found[0, 0] == [255, 0, 0]).all() and (found[3, 3] == 255).all()
    palette = Image.fromarray(RAMP).quantize(16)
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert (decode(tmp_path / "p.png")[0, 0] == 255).all()


def test_sixteen_bits(tmp_path) -> None:
    values = (np.arange(12 * 10).reshape(10, 12) * 500).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(decode(tmp_path / "deep.png")[..., 0], values >> 8)
    wide = Image.fromarray(values.astype(np.int32))
    assert wide.mode == "I"
    assert np.abs(decode(wide)[..., 0].astype(int) - (values >> 8)).max() <= 1
    unit = Image.fromarray((values / 65535).astype(np.float32))
    assert np.abs(decode(unit)[..., 1].astype(int) - (values >> 8)).max() <= 1


def test_bad_files(tmp_path, monkeypatch) -> None:
    with pytest.raises(ImageError, match="no such file"):
        decode(tmp_path / "gone.png")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(ImageError, match=r"empty.jpg: the file is empty"):
        decode(empty)
    text = tmp_path / "text.png"
    text.write_text("hello")
    with pytest.raises(ImageError, match="not an image"):
        decode(text)
    whole = tmp_path / "whole.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(noise).save(whole)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:9000])
    with pytest.raises(ImageError, match=r"cut.jpg: cannot be decoded .* Is it cut short"):
        decode(cut)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for pixels in (1500, 40000):
        bomb = tmp_path / "bomb.png"
        Image.new("L", (pixels // 10, 10)).save(bomb)
        with pytest.raises(ImageError, match="more than 1,000 pixels, a decompression bomb"):
            decode(bomb)


def test_the_stored_colours_are_cmap_s() -> None:
    from cmap import Colormap

    from onnxcam.imaging.colour import colour_table

    expected = np.rint(np.asarray(Colormap("turbo").lut(256))[:, :3] * 255)
    np.testing.assert_array_equal(colour_table("turbo"), expected)
    assert not np.array_equal(colour_table("viridis"), colour_table("turbo"))
