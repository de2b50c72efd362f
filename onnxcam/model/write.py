"""Write models; external weights stay in their files."""

from __future__ import annotations

from pathlib import Path

import onnx

from onnxcam.errors import ModelError, OutputError
from onnxcam.files import write_atomically
from onnxcam.model.read import check_external_data


def to_bytes(proto: onnx.ModelProto, path: Path) -> bytes:
    """Return the serialised model; ``path`` names it in messages.

    Raises:
        ModelError: it is larger than the format allows.
    """
    try:
        data: bytes = proto.SerializeToString()
    except ValueError as error:
        raise ModelError(
            f"{path}: larger than 2 GB with its weights inside one file, which the format does "
            "not allow. Store the weights as external data (onnx.save, save_as_external_data)."
        ) from error
    return data


def write_model(proto: onnx.ModelProto, out: Path, source: Path) -> Path:
    """Write a model that was made from the file ``source``.

    External weights are referred to by names relative to the model, and runtimes refuse links,
    so such a model can only be written into the folder of ``source``.

    Raises:
        OutputError: ``out`` is ``source`` itself or one of its weight files, cannot be written,
            or is in another folder than external weights.
    """
    data = to_bytes(proto, source)
    files = [source, *(source.parent / name for name in check_external_data(source, proto))]
    if out.resolve() in {file.resolve() for file in files}:
        raise OutputError(f"{out}: is the model's own file. Choose another with -o.")
    if len(files) > 1 and out.absolute().parent.resolve() != source.absolute().parent.resolve():
        raise OutputError(
            f"{out}: the weights of {source.name} are in files of their own, which the result "
            f"shares. Write it beside them, into '{source.absolute().parent}'."
        )
    return write_atomically(out, lambda file: file.write(data))
