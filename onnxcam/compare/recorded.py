"""A side's run in a file: recorded on one machine, compared with on another."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from onnxcam._version import __version__
from onnxcam.compare.boxes import Boxes
from onnxcam.compare.facts import About
from onnxcam.compare.feeding import Fed
from onnxcam.compare.sides import Seen, Side, digest
from onnxcam.errors import CompareError, ResultsError
from onnxcam.files import shown, write_atomically

FORMAT = 2


class Recorder:
    """Keeps what a side says, to be saved; scores, boxes and maps alone, a few KB an image."""

    def __init__(self, side: Side) -> None:
        """Take the side that is recorded."""
        self.about, self.inputs, self.recorded = side.about, side.inputs, side.recorded
        self._side, self._seen = side, dict[str, Seen]()

    def look(
        self, keys: Sequence[str], fed: Sequence[Fed], like: Sequence[Seen] | None
    ) -> list[Seen]:
        """Return what the side says, and keep it."""
        found = self._side.look(keys, fed, like)
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
            "boxes": [s.boxes and s.boxes.to_dict() for s in self._seen.values()],
            "inputs": list(self.inputs),
        }
        arrays: dict[str, NDArray[Any]] = {"head": np.array(json.dumps(head))}
        arrays |= {f"input-{n}": array for n, array in enumerate(self.inputs.values())}
        for number, seen in enumerate(self._seen.values()):
            arrays[f"scores-{number}"], arrays[f"heat-{number}"] = seen.scores, seen.heat

        def write(file: BinaryIO) -> None:
            np.savez_compressed(file, allow_pickle=False, **arrays)

        return write_atomically(path, write)


class Recorded:
    """A run that was recorded."""

    recorded = True

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
                self.inputs: Mapping[str, NDArray[Any]] = {
                    name: arrays[f"input-{n}"] for n, name in enumerate(head["inputs"])
                }
        except OSError as error:
            reason = error.strerror or "not a recorded run"
            raise ResultsError(f"{path}: cannot be read ({reason}).") from error
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ResultsError(
                f"{path}: damaged, or no run that --save wrote ({error}). Record it again."
            ) from error

    def check(self, images: Sequence[Path]) -> None:
        """Refuse images that were not recorded, before anything is run.

        Raises:
            CompareError: there are such.
        """
        absent = [path for path in images if digest(path) not in self._seen]
        if absent:
            raise CompareError(
                f"{self.path}: {len(absent)} image(s) of this call are not in the recorded run, "
                f"which has {len(self._seen)}: {shown(absent[0])} for one. Leave them out, or "
                "record the reference with the same files."
            )

    def look(
        self, keys: Sequence[str], fed: Sequence[Fed], like: Sequence[Seen] | None
    ) -> list[Seen]:
        """Return what was recorded of images that :meth:`check` let through."""
        return [self._seen[key] for key in keys]


def _seen(arrays: Any, head: dict[str, Any]) -> Iterator[Seen]:
    for number, (note, boxes) in enumerate(zip(head["notes"], head["boxes"], strict=True)):
        yield Seen(
            arrays[f"scores-{number}"],
            arrays[f"heat-{number}"],
            note,
            None if boxes is None else Boxes.from_dict(boxes),
        )
