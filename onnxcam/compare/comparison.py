"""A comparison from first image to last: rows, the journal, the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxcam._version import __version__
from onnxcam.compare.facts import About
from onnxcam.compare.feeding import Feeding
from onnxcam.compare.journal import Journal
from onnxcam.compare.locate import Located, locate
from onnxcam.compare.places import Places
from onnxcam.compare.policy import Policy, Verdict, lost, other_reason
from onnxcam.compare.recorded import Recorder
from onnxcam.compare.results import Results, Row, meaning
from onnxcam.compare.run import Run
from onnxcam.compare.setup import Pair
from onnxcam.compare.sides import ModelSide, Side
from onnxcam.compare.totals import totals
from onnxcam.errors import CompareError, ImageError, InputArrayError, OnnxcamError
from onnxcam.files import shown

WALKED = 4  # images with which layers are walked


@dataclass
class Comparison:
    """Two sides on images; iterate over it for rows, then :meth:`finish` it.

    Attributes:
        pair: the two sides.
        paths: the images.
        policy: the thresholds.
        places: what is written.
        fail_fast: whether it stops once no further image could save the verdict.
        rows: what was found so far.
        noise: how many images look like noise.
        stopped: whether it stopped early.
    """

    pair: Pair
    paths: Sequence[Path]
    policy: Policy
    places: Places
    fail_fast: bool = False
    rows: list[Row] = field(default_factory=list)
    noise: int = 0
    stopped: bool = False
    _reference: Side | None = None

    def __iter__(self) -> Iterator[Row]:
        """Run both sides on what an interrupted run has not done, and write rows as they come."""
        journal = None if self.places.results is None else Journal(self.places.results)
        if journal is not None and self.places.resume:
            self.rows = journal.resume(self._head())
        elif journal is not None:
            journal.begin(self._head())
        try:
            yield from self._run(journal)
        except OnnxcamError:
            if journal is not None and not self.rows:
                journal.end()  # there is nothing to go on with
            raise

    def _run(self, journal: Journal | None) -> Iterator[Row]:
        yield from self.rows
        self._reference = self.pair.reference
        if self.places.save is not None:
            self._reference = Recorder(self.pair.reference)
        run = Run(self._reference, self.pair.candidate, self.pair.feeding, self._left())
        for batch in run:
            self.rows += batch
            if journal is not None:
                journal.add(batch)
            self.noise = run.noise
            yield from batch
            if self.fail_fast and lost(self.results, self.policy, len(self.paths)):
                self.stopped = True
                return

    def _left(self) -> list[Path]:
        done = {row.image for row in self.rows}
        return [path for path in self.paths if shown(path) not in done]

    def _head(self) -> dict[str, Any]:
        sides = (self.pair.reference.about, self.pair.candidate.about)
        return {
            "onnxcam": __version__,
            "sides": [side.to_dict() for side in sides],
            "matched": self.pair.matched,
        }

    @property
    def results(self) -> Results:
        """What was found so far."""
        sides = (self.pair.reference.about, self.pair.candidate.about)
        return Results(*sides, self.pair.matched, self.rows, self.stopped)

    def finish(self) -> Results:
        """Write the results and the recorded run, and return the results.

        Raises:
            OutputError: they cannot be written.
        """
        results = self.results
        if self.places.results is not None:
            results.save(self.places.results)
            Journal(self.places.results).end()
        if self.places.save is not None and isinstance(self._reference, Recorder):
            self._reference.save(self.places.save)
        return results


def summary(results: Results, policy: Policy, verdict: Verdict) -> dict[str, Any]:
    """Return totals, verdict and rows, JSON-ready, without the maps."""
    rows = []
    for row in results.worst_first():
        data = row.to_dict()
        for side in ("reference", "candidate"):
            if data[side] is not None:
                del data[side]["map"]
        rows.append({**data, "different_reason": other_reason(row, policy)})
    found = totals(results.rows)
    return {
        "onnxcam": __version__,
        "reference": _named(results.reference),
        "candidate": _named(results.candidate),
        "matched": results.matched,
        "counts": {
            **results.counts(),
            "different_reason": sum(r["different_reason"] for r in rows),
        },
        "boxes": results.boxes() or None,
        "totals": {name: vars(total) for name, total in found.items()},
        "measures": {name: meaning(name, results.reference.boxes) for name in found},
        "policy": {t: dict(getattr(policy, t)) for t in ("mean", "every", "reason")},
        "passed": verdict.passed,
        "stopped": results.stopped,
        "checks": [vars(check) for check in verdict.checks],
        "worst": [row.image for row in verdict.worst],
        "images": rows,
    }


def _named(about: About) -> dict[str, Any]:
    keys = ("file", "sha256", "layer", "score", "method", "runtime", "preprocess_from")
    return {key: getattr(about, key) for key in keys}


def record(side: Side, feeding: Feeding, paths: Sequence[Path], place: Path) -> Iterator[Row]:
    """Run one side alone and save what it says.

    Raises:
        CompareError: an image cannot be read; a recorded run is whole or is not written.
        OutputError: it cannot be written.
    """
    recorder = Recorder(side)
    for batch in Run(recorder, None, feeding, paths):
        for row in batch:
            if row.error is not None:
                raise CompareError(f"{row.error} Nothing was recorded.")
            yield row
    recorder.save(place)


def walked(both: Pair, paths: Sequence[Path]) -> Located:
    """Walk the layers with the first images that can be read, see :func:`locate`.

    Raises:
        CompareError: the models have no tensors in common.
    """
    assert isinstance(both.reference, ModelSide)
    feeds: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for path in paths:
        try:
            own, other = both.feeding.prepare(path)
        except (ImageError, InputArrayError):
            continue
        feeds.append((both.reference.feeds(own), both.candidate.feeds(other)))
        if len(feeds) == WALKED:
            break
    return locate(both.reference.explainer.path, both.candidate.explainer.path, feeds)
