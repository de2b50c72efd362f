"""What Hugging Face stores beside a model: ``config.json`` and ``preprocessor_config.json``.

They lie in the model's folder, or above it where that is called ``onnx``. How image processors of
transformers read them (``image_processing_*.py`` there):

1. ``size`` of height and width: the photograph is stretched; of ``shortest_edge``: its shorter side
   is resized; one number: the first, but for the processors in ``_SHORTER``.
2. ``crop_size`` is then cut from the middle, where ``do_center_crop`` is set.
3. ConvNext (also ResNet, RegNet, Swin v2): below 384 the shorter side is resized to
   ``size / crop_pct`` and ``size`` is cut out, from 384 on the photograph is stretched. Others with
   ``crop_pct`` (PoolFormer) cut out ``crop_size`` likewise. Levit: the shorter side becomes 256/224
   of ``size``.
4. Pixels are multiplied by ``rescale_factor``, then ``image_mean`` and ``image_std`` are applied.

What is not among these, such as padding, is not guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxcam.errors import LabelsError, PreprocessError
from onnxcam.imaging.preprocess import Preprocess
from onnxcam.inputs.labels import in_order

LABELS, IMAGES = "config.json", "preprocessor_config.json"
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}  # Pillow's numbers
_SHORTER = (
    "CLIP",
    "ConvNext",
    "Levit",
    "MobileNet",
    "MobileViT",
    "PoolFormer",
    "Bit",
)
_BICUBIC = ("CLIP", "ConvNext", "Levit", "PoolFormer", "Bit", "DeiT", "Beit")
_CONVNEXT_WHOLE = 384  # from this size on ConvNext crops nothing
_OTHERWISE = ("do_pad", "size_divisor", "do_color_quantize", "include_top", "do_thumbnail")


def find(model: Path, name: str) -> Path | None:
    """Return a file beside a model, or above a folder ``onnx`` that it lies in."""
    folders = [model.parent]
    if model.absolute().parent.name == "onnx":
        folders.append(
            model.absolute().parent.parent if model.parent == Path() else model.parent.parent
        )
    return next((f / name for f in folders if (f / name).is_file()), None)


def belongs(file: Path, model: Path) -> bool:
    """Whether a file is surely the model's: no other model lies in its folder."""
    others = [m for m in file.parent.glob("*.onnx") if not m.samefile(model)]
    return not others


def labels(file: Path) -> tuple[str, ...] | None:
    """Return the names in a ``config.json``; ``None`` where it has none, or stand-ins for them.

    Raises:
        LabelsError: ``id2label`` is no list of names.
    """
    found = _read(file).get("id2label")
    if not found:
        return None
    try:
        names = in_order(dict(found))
    except (TypeError, ValueError) as error:
        raise LabelsError(f"{file}: 'id2label' cannot be read ({error}).") from error
    stand_ins = all(name == f"LABEL_{i}" for i, name in enumerate(names))
    return None if stand_ins else names


def preprocess(file: Path) -> Preprocess | None:
    """Return how a ``preprocessor_config.json`` prepares images; ``None`` where it is for no image.

    Raises:
        PreprocessError: it asks for what onnxcam does not do.
    """
    data = _read(file)
    if not any(key in data for key in ("image_mean", "do_resize", "crop_size", "rescale_factor")):
        return None
    try:
        return Preprocess.from_dict(_settings(data), str(file))
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise _refused(file, f"it cannot be read ({error!r})") from error
    except NotImplementedError as error:
        raise _refused(file, str(error)) from error


def _refused(file: Path, why: str) -> PreprocessError:
    return PreprocessError(
        f"{file}: {why}. Say how images are prepared with --preprocess NAME|FILE."
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # another tool's file
    return found if isinstance(found, dict) else {}


def _settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card's table. Raises NotImplementedError, what else it asks for."""
    kind = str(data.get("image_processor_type") or data.get("feature_extractor_type") or "")
    for key in _OTHERWISE:
        if data.get(key):
            raise NotImplementedError(f"'{key}' is not followed")
    if not data.get("do_resize", True):
        raise NotImplementedError("'do_resize' is false, and photographs have many sizes")
    made = _resize(data, kind)
    resample = data.get("resample", 3 if kind.startswith(_BICUBIC) else 2)
    if resample not in _FILTERS:
        raise NotImplementedError(f"'resample' {resample} is none of {sorted(_FILTERS)}")
    made["interpolation"] = _FILTERS[resample]
    if data.get("do_flip_channel_order"):
        made["color"] = "BGR"
    if data.get("do_rescale", True):
        made["divide"] = 1 / float(data.get("rescale_factor", 1 / 255))
        if abs(made["divide"] - round(made["divide"], 3)) < 1e-6:  # 255, not 254.99999999999997
            made["divide"] = round(made["divide"], 3)
    normalise = data.get("do_normalize", True) and "image_mean" in data
    mean, std = (data["image_mean"], data["image_std"]) if normalise else ([0.0], [1.0])
    offset = 1.0 if data.get("rescale_offset") else 0.0
    return {**made, "mean": [float(m) + offset for m in mean], "std": std}


def _resize(data: Mapping[str, Any], kind: str) -> dict[str, Any]:
    size, crop = data.get("size"), None
    if data.get("do_center_crop", "crop_size" in data) and "crop_size" in data:
        crop = _pair(data["crop_size"])
    if size is None:
        raise NotImplementedError("it names no 'size'")
    if isinstance(size, Mapping) and "height" in size and "width" in size:
        stretched, edge = _pair(size), None
    elif isinstance(size, Mapping):
        if set(size) != {"shortest_edge"}:
            raise NotImplementedError(f"'size' {dict(size)} is not followed")
        stretched, edge = None, int(size["shortest_edge"])
    elif kind.startswith(_SHORTER):
        stretched, edge = None, int(size)
    else:
        stretched, edge = _pair(size), None
    share = data.get("crop_pct")
    if kind.startswith("ConvNext") or (share and not kind.startswith("PoolFormer")):
        edge = edge or min(stretched or (0,))
        if edge >= _CONVNEXT_WHOLE:
            return {"resize": "squash", "size": [edge, edge]}
        shorter = int(edge / float(share or 224 / 256))
        return {"resize": "shorter", "shorter": shorter, "size": [edge, edge]}
    if share:
        edge = int((edge or min(stretched or (0,))) / float(share))
    elif kind.startswith("Levit") and edge:
        edge = int(256 / 224 * edge)
    if edge:
        if crop is None:
            raise NotImplementedError("images keep their proportions and are not cropped")
        return {"resize": "shorter", "shorter": edge, "size": list(crop)}
    assert stretched is not None
    if crop in (None, stretched):
        return {"resize": "squash", "size": list(stretched)}
    if stretched[0] * crop[1] != stretched[1] * crop[0]:
        raise NotImplementedError(f"'crop_size' {crop} is no smaller 'size' {stretched}")
    return {"resize": "squash", "shorter": min(stretched), "size": list(crop)}


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        return int(size["height"]), int(size["width"])
    if isinstance(size, (list, tuple)):
        height, width = size
        return int(height), int(width)
    return int(size), int(size)
