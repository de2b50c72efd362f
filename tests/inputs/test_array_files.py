"""Files that hold no photograph: arrays, sounds, volumes; and pictures of medicine."""

from __future__ import annotations

import sys
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxcam
from onnxcam import cli
from onnxcam.errors import (
    ImageError,
    InputArrayError,
)

from ..test_cases import CASES, arrays, case
from ..test_spaces import explainer


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sounds(width: int, tmp_path: Path) -> None:
    """PCM of 8, 16, 24 and 32 bits; longer or shorter than the model's signals."""
    made = explainer(CASES / "stft-fixed.onnx")
    length = made.plan.image.width
    assert length is not None
    x = arrays("stft-fixed")["input.wave"][0]
    x = (x / np.abs(x).max() * 0.9).astype(np.float32)
    top = 1 << (8 * width - 1)
    whole = np.rint(x.astype(np.float64) * top).astype(np.int64)
    stored = (whole + (128 if width == 1 else 0)) & ((1 << 8 * width) - 1)
    data = stored.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width]

    def write(name: str, samples: np.ndarray) -> Path:
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setparams((1, width, 16000, 0, "NONE", ""))
            file.writeframes(samples.tobytes())
        return tmp_path / name

    [right] = made.explain((whole / top).astype(np.float32), 1)
    [found] = made.explain(write("sound.wav", data), 1)
    np.testing.assert_allclose(found.signed, right.signed, atol=1e-7)
    with pytest.warns(UserWarning, match=f"the first {length} are taken"):
        [longer] = made.explain(write("longer.wav", np.concatenate([data, data])), 1)
    np.testing.assert_allclose(longer.signed, right.signed, atol=1e-7)
    with pytest.warns(UserWarning, match="silence is added"):
        made.explain(write("shorter.wav", data[:-100]), 1)
    with pytest.raises(InputArrayError, match="a sound, but the model takes images"):
        onnxcam.Explainer(onnxcam.default_model()).explain(tmp_path / "sound.wav")


def test_volumes_of_medicine(tmp_path: Path) -> None:
    """NIfTI: as it lies in the file; of twice the size, resized."""
    nibabel = pytest.importorskip("nibabel")
    x = arrays("volume")["input.volume"][0, 0]
    made = explainer(CASES / "volume.onnx")
    nibabel.save(nibabel.Nifti1Image(x, np.diag([2, 3, 4, 1.0])), tmp_path / "x.nii.gz")
    twice = np.kron(x, np.ones((2, 2, 2), np.float32))
    nibabel.save(nibabel.Nifti1Image(twice, np.eye(4)), tmp_path / "twice.nii")
    [right] = made.explain(x[None], 1)
    [found] = made.explain(tmp_path / "x.nii.gz", 1)
    np.testing.assert_array_equal(found.signed, right.signed)
    [larger] = made.explain(tmp_path / "twice.nii", 1)
    np.testing.assert_allclose(larger.signed, right.signed, atol=1e-5)
    assert larger.heatmap.shape == twice.shape
    assert larger.to_dict()["size"] == dict(
        zip(("depth", "height", "width"), twice.shape, strict=True)
    )
    with pytest.raises(InputArrayError, match="a volume of one channel, but the model takes"):
        explainer(CASES / "signal.onnx").explain(tmp_path / "x.nii.gz")


@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
def test_pictures_of_medicine(kind: str, tmp_path: Path) -> None:
    """DICOM: through its slope, intercept and window."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset

    stored = np.random.default_rng(9).integers(0, 4096, (48, 64), np.uint16)
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, kind
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept = 2, -1024
    data.WindowCenter, data.WindowWidth = 40, 400
    data.PixelData = stored.tobytes()
    data.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    units = stored.astype(np.float64) * 2 - 1024
    level = np.clip((units - (40 - 200)) / 400, 0, 1)
    level = 1 - level if kind == "MONOCHROME1" else level
    from onnxcam.imaging.decode import decode

    found = decode(tmp_path / "x.dcm")
    assert found.shape == (48, 64, 3)
    np.testing.assert_allclose(found[..., 0], np.rint(level * 255), atol=1)
    (tmp_path / "y.dcm").write_bytes(b"no such thing")
    with pytest.raises(ImageError, match=r"y.dcm: cannot be decoded"):
        decode(tmp_path / "y.dcm")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["onnxcam", *arguments])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SystemExit) as left:
            cli.main()
    return left.value.code


@pytest.mark.parametrize("name", ["signal", "volume", "channels-13", "stft-script"])
def test_arrays_at_the_command_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of .npy files, float64 as NumPy writes by default; a picture and arrays of each."""
    given = case(name)["inputs"]
    x = next(iter(v for k, v in arrays(name).items() if k == f"input.{next(iter(given))}"))[0]
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "one.npy", x.astype(np.float64))
    out = tmp_path / "out"
    call = ("explain", str(tmp_path / "in"), "-m", str(CASES / f"{name}.onnx"), "-t", "1")
    assert run(monkeypatch, *call, "-o", str(out), "--arrays") in (0, None)
    with np.load(out / "one-1.npz") as stored:
        want = next(w for w in case(name)["wants"] if w["expects"] == "signed")
        right = arrays(name)[f"{want['name']}.signed"][0]
        if want["target"]["index"] == 1:
            np.testing.assert_allclose(stored["signed"], right, atol=1e-4 * np.abs(right).max())
        assert stored["signed"].shape == right.shape
        assert stored["heatmap"].shape == x.shape[1:] or name == "stft-script"
    assert max(Image.open(out / "one-1.jpg").size) >= 64


def test_a_photograph_for_a_model_of_signals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    call = ("explain", str(CASES / "photo.png"), "-m", str(CASES / "signal.onnx"))
    assert run(monkeypatch, *call) == 2
    assert "takes signals [2, 128], no photographs. Give a .npy or .wav file" in (
        capsys.readouterr().err
    )
