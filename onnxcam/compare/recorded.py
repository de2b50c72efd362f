"""A side's run in a file: recorded on one machine, compared with on another."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from onnxcam._version import __version__
from onnxcam.compare.facts import About
from onnxcam.compare.sides import Seen, Side
from onnxcam.errors import CompareError, ResultsError
from onnxcam.files import write_atomically

FORMAT = 1


class Recorder:
    """Keeps what a side says, to be saved; its scores and maps alone, a few KB an image."""

    def __init__(self, side: Side) -> None:
        """Take the side that is recorded."""
        self.about, self._side = side.about, side
        self._seen: dict[str, Seen] = {}

    def look(
        self, keys: Sequence[str], tensors: Sequence[NDArray[Any]], targets: Sequence[int] | None
    ) -> list[Seen]:
        """Return what the side says, and keep it."""
        found = self._side.look(keys, tensors, targets)
        self._seen |= dict(zip(keys, found, strict=True))
        return found

    def save(self, path: Path) -> Path:
        """Write the run.

        Raises:
            OutputError: it cannot be written.
        """
        head = {
            "onnxcam": __version__,
            "kind": "recorded run",
            "format": FORMAT,
            "about": self.about.to_dict(),
            "images": list(self._seen),
            "notes": [seen.note for seen in self._seen.values()],
        }
        arrays: dict[str, NDArray[Any]] = {"head": np.array(json.dumps(head))}
        for number, seen in enumerate(self._seen.values()):
            arrays[f"scores-{number}"], arrays[f"heat-{number}"] = seen.scores, seen.heat

        def write(file: BinaryIO) -> None:
            np.savez_compressed(file, allow_pickle=False, **arrays)

        return write_atomically(path, write)


class Recorded:
    """A run that was recorded."""

    def __init__(self, path: Path) -> None:
        """Read a file that :meth:`Recorder.save` wrote.

        Raises:
            ResultsError: it cannot be read, or is none.
        """
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as arrays:
                head = json.loads(str(arrays["head"]))
                if head.get("kind") != "recorded run" or head.get("format") != FORMAT:
                    raise ResultsError(f"{path}: no run of this version of 'onnxcam compare'.")
                self.about = About.from_dict(head["about"])
                self._seen = dict(zip(head["images"], _seen(arrays, head), strict=True))
        except OSError as error:
            reason = error.strerror or "not a recorded run"
            raise ResultsError(f"{path}: cannot be read ({reason}).") from error
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ResultsError(
                f"{path}: damaged, or no run that --save wrote ({error}). Record it again."
            ) from error

    def look(
        self, keys: Sequence[str], tensors: Sequence[NDArray[Any]], targets: Sequence[int] | None
    ) -> list[Seen]:
        """Return what was recorded of images.

        Raises:
            CompareError: an image is not in the recorded run.
        """
        missing = [key for key in keys if key not in self._seen]
        if missing:
            raise CompareError(
                f"{self.path}: {len(missing)} image(s) of this call are not in the recorded run, "
                f"which has {len(self._seen)}. Record the reference with the same files."
            )
        return [self._seen[key] for key in keys]


def _seen(arrays: Any, head: dict[str, Any]) -> Iterator[Seen]:
    for number, note in enumerate(head["notes"]):
        yield Seen(arrays[f"scores-{number}"], arrays[f"heat-{number}"], note)
