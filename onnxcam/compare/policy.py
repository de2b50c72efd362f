"""Thresholds, and whether results keep to them."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxcam.compare.measures import ALIKE, ONE
from onnxcam.compare.results import FAILED, MEASURES, Results, Row
from onnxcam.errors import PolicyError, nearest

REASON = "different_reason"
DEFAULT_MEAN = {"min_agreement": 0.85, "min_correlation": 0.9, "max_peak_shift": 0.1}
DEFAULT_REASON = {"min_correlation": 0.7, "max_peak_shift": 0.25}
MOST_NAMED = 5


def _limits() -> dict[str, tuple[float, float]]:
    """Return the names of thresholds, and what they may lie between."""
    found = {f"max_{REASON}": (0.0, 1.0)}
    for name, (_, more) in MEASURES.items():
        low = -1.0 if "correlation" in name else 0.0
        high = math.inf if name == "score_drift" else 1.0
        found[f"{'min' if more else 'max'}_{name}"] = (low, high)
    return found


LIMITS = _limits()


@dataclass(frozen=True)
class Policy:
    """Thresholds by name, ``min_correlation`` for one.

    Attributes:
        mean: what the means over images must keep to.
        every: what every image must keep to.
        reason: from where on an image's maps show another reason.
    """

    mean: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MEAN))
    every: Mapping[str, float] = field(default_factory=dict)
    reason: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_REASON))

    def __post_init__(self) -> None:
        """Refuse thresholds that no measure can have.

        Raises:
            PolicyError: unknown, or out of range.
        """
        for table in ("mean", "every", "reason"):
            for name, limit in getattr(self, table).items():
                if name not in LIMITS or (name == f"max_{REASON}" and table != "mean"):
                    raise PolicyError(
                        f"[{table}] {name}: unknown threshold.{nearest(name, LIMITS)} Known: "
                        f"{', '.join(LIMITS)}."
                    )
                low, high = LIMITS[name]
                number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
                if not number or not low <= limit <= high:
                    reach = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
                    raise PolicyError(f"{name} = {limit}: it must be {reach}.")

    def to_toml(self) -> str:
        """Return the file that :func:`read_policy` reads."""
        lines: list[str] = []
        for table in ("mean", "every", "reason"):
            limits = getattr(self, table)
            if limits:
                lines += [f"[{table}]", *(f"{n} = {v:g}" for n, v in limits.items()), ""]
        return "\n".join(lines)


def read_policy(path: Path) -> Policy:
    """Read thresholds from a TOML file; ``[reason]`` may be left out.

    Raises:
        PolicyError: it cannot be read, or its thresholds are unknown or out of range.
    """
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read as a policy ({error}).") from error
    tables = ("mean", "every", "reason")
    for name, table in data.items():
        if name not in tables or not isinstance(table, dict):
            raise PolicyError(f"{path}: '{name}' is none of the tables [mean], [every], [reason].")
    if not data.get("mean") and not data.get("every"):
        raise PolicyError(f"{path}: no threshold in [mean] or [every].")
    try:
        return Policy(
            data.get("mean", {}), data.get("every", {}), data.get("reason") or DEFAULT_REASON
        )
    except PolicyError as error:
        raise PolicyError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Check:
    """One threshold.

    Attributes:
        where: ``"mean"`` or ``"every"``.
        name: of the threshold.
        limit: what was asked for.
        value: what was found: the mean, or the worst image's.
        passed: whether it is kept to.
        failing: the images that break a threshold on every image.
    """

    where: str
    name: str
    limit: float
    value: float | None
    passed: bool
    failing: tuple[str, ...] = ()

    def __str__(self) -> str:
        sign = ">=" if self.name.startswith("min_") else "<="
        found = "no image has it" if self.value is None else f"{self.value:.4f}"
        of = "mean" if self.where == "mean" else "every image's"
        return f"{of} {self.name[4:]} {found} (wanted {sign} {self.limit:g})"


@dataclass(frozen=True)
class Verdict:
    """Whether results keep to a policy.

    Attributes:
        checks: each threshold.
        failed: images of which one side has no finite answer, or that could not be read.
        worst: the worst images of a verdict that is not passed, worst first.
    """

    checks: tuple[Check, ...]
    failed: int
    worst: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether every threshold is kept to, by images that could all be compared."""
        return all(c.passed for c in self.checks) and not self.failed


def other_reason(row: Row, policy: Policy) -> bool:
    """Whether an image has the same answer for a different reason."""
    if row.measures.get("agreement") != 1:
        return False
    if row.status == ONE:
        return True
    return row.status == ALIKE and not all(
        _keeps(row.measures, name, limit) for name, limit in policy.reason.items()
    )


def judge(results: Results, policy: Policy) -> Verdict:
    """Apply a policy to results."""
    done = [r for r in results.rows if r.status != FAILED]
    checks = [_on_mean(done, policy, n, v) for n, v in policy.mean.items()]
    checks += [_on_every(done, n, v) for n, v in policy.every.items()]
    failed = len(results.rows) - len(done)
    passed = all(c.passed for c in checks) and not failed
    worst = () if passed else tuple(results.worst_first()[:MOST_NAMED])
    return Verdict(tuple(checks), failed, worst)


def _on_mean(rows: Sequence[Row], policy: Policy, name: str, limit: float) -> Check:
    if name == f"max_{REASON}":
        values = [float(other_reason(r, policy)) for r in rows]
    else:
        values = [r.measures[name[4:]] for r in rows if name[4:] in r.measures]
    if not values:
        return Check("mean", name, limit, None, False)
    mean = sum(values) / len(values)
    return Check("mean", name, limit, mean, _keeps({name[4:]: mean}, name, limit))


def _on_every(rows: Sequence[Row], name: str, limit: float) -> Check:
    having = [r for r in rows if name[4:] in r.measures]
    if not having:
        return Check("every", name, limit, None, False)
    values = [r.measures[name[4:]] for r in having]
    worst = min(values) if name.startswith("min_") else max(values)
    failing = tuple(r.image for r in having if not _keeps(r.measures, name, limit))
    return Check("every", name, limit, worst, not failing, failing)


_ROUNDING = 1e-9


def _keeps(measures: Mapping[str, float], name: str, limit: float) -> bool:
    value = measures.get(name[4:])
    if value is None:
        return True
    if name.startswith("min_"):
        return value >= limit - _ROUNDING
    return value <= limit + _ROUNDING


def lost(results: Results, policy: Policy, total: int) -> bool:
    """Whether no further image could save the verdict, of ``total`` images."""
    done = list(results.rows)
    if any(r.status == FAILED for r in done):
        return True
    perfect = {n: float(more) for n, (_, more) in MEASURES.items()}
    rest = [Row("", "", ALIKE, perfect)] * (total - len(done))
    kept = Results(results.reference, results.candidate, results.matched, [*done, *rest])
    return not judge(kept, policy).passed
