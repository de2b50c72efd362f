"""Rows on disk while a comparison runs, so that one that is killed can go on.

``NAME.json.part`` has a line of what is compared, then a line a row. It is removed once the results
are written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onnxcam.compare.results import Row
from onnxcam.errors import OutputError, ResultsError


class Journal:
    """The file beside the results."""

    def __init__(self, results: Path) -> None:
        """Take the place of the results."""
        self.path = results.with_name(f"{results.name}.part")

    def begin(self, head: dict[str, Any]) -> None:
        """Begin anew.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(head) + "\n", "utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}).") from error

    def resume(self, head: dict[str, Any]) -> list[Row]:
        """Return the rows of the run that was interrupted; nothing where there was none.

        What a killed run wrote of its last line is cut off.

        Raises:
            ResultsError: the file is of another comparison, or damaged.
            OutputError: it cannot be written.
        """
        if not self.path.is_file():
            self.begin(head)
            return []
        text = self.path.read_text("utf-8", "replace")
        whole, _, _ = text.rpartition("\n")
        first, *lines = whole.split("\n")
        try:
            same = json.loads(first) == json.loads(json.dumps(head))
            rows = [Row.from_dict(json.loads(line)) for line in lines]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ResultsError(
                f"{self.path}: damaged. --overwrite begins anew. ({error!r})"
            ) from error
        if not same:
            raise ResultsError(
                f"{self.path}: belongs to a comparison of other models or in another way. "
                "--overwrite begins anew."
            )
        try:
            self.path.write_text(whole + "\n", "utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}).") from error
        return rows

    def add(self, rows: list[Row]) -> None:
        """Append rows.

        Raises:
            OutputError: it cannot be written.
        """
        text = "".join(
            json.dumps(row.to_dict(), ensure_ascii=False, allow_nan=False) + "\n" for row in rows
        )
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}).") from error

    def end(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)
