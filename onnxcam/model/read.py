"""Read a model file and refuse, with a reason, what cannot be explained safely."""

from __future__ import annotations

from pathlib import Path

import onnx

from onnxcam.errors import ExternalDataError, ModelError
from onnxcam.graph.protos import opset_of, stored_tensors

MIN_OPSET = 7
MIN_IR = 3
_ORT_FORMAT = b"ORTM"  # file identifier of the flatbuffers schema


def read_model(path: str | Path) -> onnx.ModelProto:
    """Return the model of ``path``; external weights stay on disk, but their files are checked.

    Raises:
        ModelError: the file is missing, empty, not ONNX, cut short, or too old.
        ExternalDataError: weights kept in other files are missing, cut short or lie
            outside the model's own folder.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ModelError(f"{path}: is a directory. {_files_of(path)}")
        if not path.exists():
            raise ModelError(f"{path}: no such file.")
        if not path.is_file():
            raise ModelError(f"{path}: is a device or a pipe. Give the .onnx file itself.")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    if not data:
        raise ModelError(f"{path}: the file is empty.")
    if data[4:8] == _ORT_FORMAT:
        raise ModelError(
            f"{path}: is in ONNX Runtime's own format (.ort), which holds no ONNX graph. Give the "
            ".onnx file that it was made from."
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:
        raise ModelError(
            f"{path}: not an ONNX model, or cut short ({len(data):,} bytes). "
            "Download or export it again."
        ) from error
    if not model.graph.node or not model.opset_import:
        raise ModelError(
            f"{path}: not an ONNX model, or cut short: it has no "
            f"{'nodes' if model.opset_import else 'opset'}."
        )
    _check_versions(path, model)
    return model


def _files_of(folder: Path) -> str:
    """Return which file to give in place of a folder, such as Hugging Face's."""
    found = sorted([*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")])
    found.sort(key=lambda f: f.name != "model.onnx")
    if not found:
        return "Give the .onnx file itself; there is none in it."
    names = ", ".join(map(str, found[:3]))
    more = f" or one of {len(found) - 3} others" if len(found) > 3 else ""
    return f"Give the .onnx file itself: {names}{more}."


def _check_versions(path: Path, model: onnx.ModelProto) -> None:
    opset = opset_of(model)
    if opset < MIN_OPSET:
        raise ModelError(
            f"{path}: opset {opset} is older than {MIN_OPSET}, the oldest supported. "
            "Export it again, or lift it with onnx.version_converter."
        )
    if model.ir_version < MIN_IR:
        raise ModelError(f"{path}: IR version {model.ir_version} is older than {MIN_IR}.")


def check_external_data(path: Path, model: onnx.ModelProto) -> dict[str, int]:
    """Allow only weights in existing files inside the model's own folder.

    Returns:
        The sizes of these files by their names.

    Raises:
        ExternalDataError: an absolute path, a path or symbolic link that leaves the folder,
            a missing file, or one that is too short.
    """
    folder = path.absolute().parent
    sizes: dict[str, int] = {}
    for tensor in stored_tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        where = f"{path}: weights of '{tensor.name}'"
        if not location:
            raise ExternalDataError(f"{where} name no file.")
        if location not in sizes:
            sizes[location] = _size_inside(folder, location, where)
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        except ValueError as error:
            raise ExternalDataError(f"{where} have an offset or length that is no number.") from (
                error
            )
        if offset < 0 or length < 0 or offset + length > sizes[location]:
            raise ExternalDataError(
                f"{where} end at byte {offset + length:,} of '{location}', which has "
                f"{sizes[location]:,}. The file is cut short or belongs to another model."
            )
    return sizes


def _size_inside(folder: Path, location: str, where: str) -> int:
    way_out = "Only files inside the model's own folder are read; move the file there."
    if Path(location).is_absolute() or location.startswith("\\") or ":" in location[:3]:
        raise ExternalDataError(f"{where} point to the absolute path '{location}'. {way_out}")
    if "\0" in location:
        raise ExternalDataError(f"{where} name no file but {location!r}.")
    target = (folder / location).resolve()
    if not target.is_relative_to(folder.resolve()):
        link = ", through a symbolic link" if ".." not in Path(location).parts else ""
        raise ExternalDataError(f"{where} point outside the folder ('{location}'{link}). {way_out}")
    if not target.is_file():
        raise ExternalDataError(
            f"{where} should be in '{location}', which is missing. Put it beside the model."
        )
    return target.stat().st_size
