"""Changed files: a message, or an explanation; never a traceback, a crash, a hang or half a file.

``benchmarks/mutations.py`` does the same with many more.
"""

from __future__ import annotations

from pathlib import Path

from .mutations.cases import image_jobs, model_jobs
from .mutations.runs import Outcome, run

COUNT = 100


def _check(outcomes: list[Outcome]) -> None:
    wrong = [f"{o.what} ({o.file}): {o.problem}" for o in outcomes if o.problem]
    assert not wrong, "\n".join(wrong)
    codes = {o.code for o in outcomes}
    assert 0 in codes and codes & {1, 2}  # some do no harm, some are refused


def test_changed_models(tmp_path: Path) -> None:
    _check(run(tmp_path, model_jobs(tmp_path, COUNT, seed=1), limit=20))


def test_changed_images(tmp_path: Path) -> None:
    _check(run(tmp_path, image_jobs(tmp_path, COUNT, seed=1), limit=20))
