"""Write models; weights that live in files of their own stay there."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from onnxcam.errors import ModelError, OutputError
from onnxcam.files import write_atomically
from onnxcam.surgeon.load import check_external_data


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

    External weights are referred to by names relative to the model, so they have to be in its
    folder too: where ``out`` is in another folder they are hard-linked there, which stores
    nothing twice.

    Raises:
        OutputError: ``out`` is ``source`` itself or one of its weight files, cannot be written,
            or its weights cannot be linked.
    """
    data = to_bytes(proto, source)
    files = check_external_data(source, proto)
    weights = [(source.absolute().parent / name, out.absolute().parent / name) for name in files]
    for taken in (source, *(there for there, _ in weights)):
        if out.exists() and taken.exists() and out.samefile(taken):
            raise OutputError(f"{out}: is the model's own file. Choose another with -o.")
    for there, here in weights:
        _link(there, here, out)
    return write_atomically(out, lambda file: file.write(data))


def _link(there: Path, here: Path, out: Path) -> None:
    """Have the weights of ``there`` at ``here`` too."""
    if here.exists() and here.samefile(there):
        return
    way_out = f"Write the result beside the model, into '{there.parent}'."
    if here.exists():
        raise OutputError(
            f"{out}: its weights belong into '{here.name}', where another file is. {way_out}"
        )
    try:
        here.parent.mkdir(parents=True, exist_ok=True)
        os.link(there, here)
    except OSError as error:
        raise OutputError(
            f"{out}: its weights '{there.name}' cannot be linked there ({error.strerror}). "
            f"{way_out}"
        ) from error
