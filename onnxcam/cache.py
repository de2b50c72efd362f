"""Instrumented models on disk, so that the second call on a model needs no surgery.

An entry is a folder named by the sha256 of the model file's content, the options and the
version of onnxcam. It is written beside its place and renamed, so readers see all of it or
nothing, and of two writers the second finds the first one's work. Weights kept outside the
model file stay there; an entry refers to them by name as the model does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from onnxcam._version import __version__
from onnxcam.files import cache_folder
from onnxcam.surgeon.plan import Plan
from onnxcam.surgeon.request import Request

FORMAT = 10  # raised when the content of entries changes its meaning
_ENTRY = re.compile(r"[0-9a-f]{64}")
MOST_BYTES = 2 << 30  # oldest entries go beyond this


def instrumented(
    path: Path, request: Request, keys: Sequence[str | None], *, cached: bool
) -> tuple[bytes | Path, Plan]:
    """Return the instrumented model, serialised or as a file, and its plan.

    Args:
        path: the model file.
        request: see :class:`onnxcam.surgeon.request.Request`.
        keys: what tells each part of the request from others; with a ``None`` among them nothing
            is looked up or kept.
        cached: look on disk first, and leave the result there.

    Raises:
        OnnxcamError: as :func:`onnxcam.surgeon.instrument.instrument`. A cache that cannot be
            read or written is passed over.
    """
    if not cached or None in keys or not path.is_file():
        return _make(path, request)
    try:
        entry = cache_folder() / _key(path, request, keys)
    except (OSError, RuntimeError):  # no home, or the file is gone again
        return _make(path, request)
    found = _read(entry, path)
    if found is not None:
        return found
    data, plan = _make(path, request)
    if entry.name == _key(path, request, keys):  # else the file was changed meanwhile
        _write(entry, path, data, plan)
    return data, plan


def forget(model: Path) -> None:
    """Remove the entry that holds ``model``, which turned out to be damaged."""
    shutil.rmtree(model.parent, ignore_errors=True)


def _make(path: Path, request: Request) -> tuple[bytes, Plan]:
    from onnxcam.surgeon.instrument import instrument  # onnx is imported only for surgery

    return instrument(path, request)


def _key(path: Path, request: Request, keys: Sequence[str | None]) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    options = [FORMAT, __version__, path.name, *request.options(), *keys]
    digest.update(json.dumps(options).encode())
    return digest.hexdigest()


def _read(entry: Path, path: Path) -> tuple[Path, Plan] | None:
    """Return an entry, unless it is absent, damaged, or its outer weights have changed."""
    model = entry / "model.onnx"
    try:
        stored = json.loads((entry / "plan.json").read_text("utf-8"))
        if model.stat().st_size != stored["bytes"]:
            return None
        for name, size in stored["outer"].items():
            if (path.parent / name).stat().st_size != size:
                return None
        plan = Plan.from_dict(stored["plan"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    with contextlib.suppress(OSError):  # another user's cache may be read all the same
        os.utime(entry)
    return model, plan


def _write(entry: Path, path: Path, data: bytes, plan: Plan) -> None:
    stored = {"bytes": len(data), "outer": plan.outer, "plan": plan.to_dict()}
    fresh = entry.with_name(f".{entry.name[:16]}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        fresh.mkdir(parents=True)
        (fresh / "model.onnx").write_bytes(data)
        (fresh / "plan.json").write_text(json.dumps(stored), "utf-8")
        if entry.exists() and _read(entry, path) is None:  # damaged, or of other outer weights
            shutil.rmtree(entry, ignore_errors=True)
        fresh.rename(entry)
        _prune(entry.parent)
    except OSError:  # full, read-only, or another writer was first
        shutil.rmtree(fresh, ignore_errors=True)


def _prune(folder: Path) -> None:
    """Remove the entries used longest ago until the rest is below the limit."""
    entries = []
    for entry in folder.iterdir():
        if not _ENTRY.fullmatch(entry.name) or not (entry / "plan.json").is_file():
            continue  # not made here
        try:
            size = sum(f.stat().st_size for f in entry.iterdir())
            entries.append((entry.stat().st_mtime, size, entry))
        except OSError:
            continue
    total = sum(size for _, size, _ in entries)
    for _, size, entry in sorted(entries):
        if total <= MOST_BYTES:
            break
        shutil.rmtree(entry, ignore_errors=True)
        total -= size
