"""Write files so that a killed run leaves no half of one; where the cache and packed files lie."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from onnxcam.errors import OutputError, PictureError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
WEBP_LIMIT = 16383


def packed(folder: str) -> Traversable:
    """Return a folder that a build packs; a source tree has it beside the package."""
    inside = files("onnxcam") / folder
    return inside if inside.is_dir() else Path(__file__).parents[1] / folder


def check_writable(path: str | Path, *, folder: bool = False) -> None:
    """Refuse a file, or a folder, that cannot be written; those above it need not be there yet.

    Raises:
        OutputError: it is something else, or the nearest folder that exists is not writable.
    """
    path = Path(path)
    if not folder and path.exists() and not path.is_file():
        raise OutputError(f"{path}: is not a file. Choose another place.")
    nearest = path.absolute() if folder else path.absolute().parent
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        why = f"'{nearest}' is a file"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        why = f"'{nearest}' is not writable"
    else:
        return
    raise OutputError(f"{path}: cannot be written, {why}. Choose another place.")


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let ``write`` fill a file beside ``path``, then rename it there.

    Raises:
        OutputError: the place cannot be written.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a rename would put a file in its place
            raise OutputError(f"{path}: is not a file. Choose another with -o.")
        temporary = path.with_name(f".{os.urandom(4).hex()}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}).") from error
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Write a picture as .png, .jpg or .webp.

    Raises:
        PictureError: it is too large for WebP.
        OutputError: the place cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".webp" and max(picture.size) > WEBP_LIMIT:
        raise PictureError(
            f"{path}: WebP holds at most {WEBP_LIMIT} pixels a side, the picture has "
            f"{picture.width}x{picture.height}. Use png or jpg."
        )
    quality = {"quality": 92} if suffix != ".png" else {"compress_level": 1}
    return write_atomically(path, lambda file: picture.save(file, FORMATS[suffix], **quality))


def cache_folder() -> Path:
    """Return ``$ONNXCAM_CACHE``, or ``onnxcam`` in the user's folder for caches."""
    given = os.environ.get("ONNXCAM_CACHE")
    if given:
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "onnxcam"


def shown(path: object) -> str:
    """Return a path as text that can be printed and stored, whatever bytes its name holds."""
    return str(path).encode("utf-8", "replace").decode("utf-8")
