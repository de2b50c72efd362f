"""DICOM pictures; needs pydicom, of the extra ``medical``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import ImageError


def read_dicom(
    path: Path, limits: tuple[float, float] | None
) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Return a file's pixels, ``[H, W]`` numbers or ``[H, W, 3]`` uint8, and their range.

    Grey pixels are brought to the modality's numbers (Hounsfield units of CT) by the file's slope
    and intercept (PS3.3, C.11.1), and shown through its first window (C.11.2) where no other
    ``limits`` are given; MONOCHROME1, in which low numbers are bright, is turned around.

    Raises:
        ImageError: pydicom is not installed, or the file is no single picture.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut
    except ImportError as error:
        raise ImageError(
            f"{path}: DICOM files need the extra 'medical': pip install 'onnxcam[medical]'."
        ) from error
    data = pydicom.dcmread(path)
    kind = str(data.get("PhotometricInterpretation", ""))
    pixels = data.pixel_array
    if pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.dtype == np.uint8:
        if kind.startswith("YBR"):
            from pydicom.pixels import convert_color_space

            pixels = convert_color_space(pixels, kind, "RGB")
        return np.asarray(pixels), None
    if pixels.ndim != 2:
        raise ImageError(f"{path}: holds pixels of shape {list(pixels.shape)}; give one picture.")
    values = np.asarray(apply_modality_lut(pixels, data), np.float64)
    if limits is None:
        centre, width = data.get("WindowCenter"), data.get("WindowWidth")
        if centre is not None and width is not None:
            middle, whole = float(np.ravel(centre)[0]), float(np.ravel(width)[0])
            limits = (middle - whole / 2, middle + whole / 2)
        else:
            limits = (float(values.min()), float(values.max()) or 1.0)
    if kind == "MONOCHROME1":
        values = sum(limits) - values
    return values, limits
