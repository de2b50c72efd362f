"""What a comparison writes, checked before anything is run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onnxcam.compare.journal import Journal
from onnxcam.errors import OutputError
from onnxcam.files import check_writable


@dataclass(frozen=True)
class Places:
    """Files that are written.

    Attributes:
        results: the file of results; ``None`` where none is written.
        report: the HTML page.
        junit: the JUnit XML.
        save: the recorded run.
        overwrite: whether files that are there are replaced.
        resume: whether an interrupted run goes on.
    """

    results: Path | None = None
    report: Path | None = None
    junit: Path | None = None
    save: Path | None = None
    overwrite: bool = False
    resume: bool = False

    def check(self) -> None:
        """Refuse what cannot be written.

        Raises:
            OutputError: a file is there already, a place cannot be written, or an earlier run was
                interrupted there.
        """
        for path in self._all():
            check_writable(path)
            if path.exists() and not self.overwrite:
                if path == self.results and self.resume:
                    raise OutputError(f"{path}: is complete; there is nothing to resume.")
                raise OutputError(f"{path}: exists. --overwrite replaces it.")
        if self.results is None:
            return
        part = Journal(self.results).path
        if part.exists() and not (self.resume or self.overwrite):
            raise OutputError(
                f"{part}: an earlier run was interrupted. --resume goes on, --overwrite begins "
                "anew."
            )

    def _all(self) -> Iterable[Path]:
        listed = (self.results, self.report, self.junit, self.save)
        paths = [p for p in listed if p is not None]
        if len({p.absolute() for p in paths}) != len(paths):
            raise OutputError(f"{paths[-1]}: two results would be written to one file.")
        return paths
