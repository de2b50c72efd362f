"""Totals, thresholds, verdicts."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from onnxcam.compare.measures import ALIKE, BOTH, NOTHING_ALIKE, ONE
from onnxcam.compare.policy import LIMITS, Policy, judge, lost, other_reason, read_policy
from onnxcam.compare.results import FAILED, MEASURES, Results, Row
from onnxcam.compare.totals import RESAMPLES, totals
from onnxcam.errors import PolicyError


def row(name: str = "a", status: str = ALIKE, **measures: float) -> Row:
    perfect = {n: float(more) for n, (_, more) in MEASURES.items()}
    if status == BOTH:
        perfect = {n: perfect[n] for n in ("agreement", "top5", "score_drift")}
    if status == ONE:
        perfect |= NOTHING_ALIKE
    return Row(name, "", status, {} if status == FAILED else {**perfect, **measures})


def results(*rows: Row) -> Results:
    return Results(None, None, {}, rows)  # type: ignore[arg-type]


def test_the_interval_is_the_bootstrap_of_the_mean() -> None:
    values = np.random.default_rng(1).uniform(size=30)
    found = totals([row(correlation=v) for v in values])["correlation"]
    generator, means = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = [values[i] for i in generator.integers(0, 30, 30)]
        means.append(sum(drawn) / 30)
    means.sort()
    assert found.mean == pytest.approx(values.mean()) and found.count == 30
    assert found.low == pytest.approx(np.quantile(means, 0.025))
    assert found.high == pytest.approx(np.quantile(means, 0.975))
    assert totals([row(correlation=v) for v in values])["correlation"] == found  # seeded
    wide = 1.96 * values.std() / math.sqrt(30)
    assert found.high - found.low == pytest.approx(2 * wide, rel=0.15)


def test_what_says_nothing_leaves_no_nan_in_a_mean() -> None:
    rows = [row(), row(status=ONE), row(status=BOTH), row(status=FAILED)]
    found = totals(rows)
    assert found["correlation"].count == 2 and found["correlation"].mean == 0.5
    assert found["agreement"].count == 3 and found["agreement"].mean == 1
    assert all(np.isfinite([t.mean, t.low, t.high]).all() for t in found.values())
    assert totals([row(status=BOTH)]).keys() == {"agreement", "top5", "score_drift"}


def test_the_same_answer_for_a_different_reason() -> None:
    policy = Policy()
    assert not other_reason(row(), policy)
    assert other_reason(row(correlation=0.5), policy)
    assert other_reason(row(peak_shift=0.4), policy)
    assert other_reason(row(status=ONE), policy)
    assert not other_reason(row(status=BOTH), policy)
    assert not other_reason(row(agreement=0, correlation=0.1), policy)  # another answer
    assert not other_reason(row(status=FAILED), policy)
    verdict = judge(results(row(), row(correlation=0.5)), Policy({"max_different_reason": 0.4}))
    assert verdict.checks[0].value == 0.5 and not verdict.passed


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_every_threshold_is_kept_to_and_broken(name: str) -> None:
    if name == "max_different_reason":
        return
    measure, limit = name[4:], 0.5
    good, bad = (0.6, 0.4) if name.startswith("min_") else (0.4, 0.6)
    for table in ("mean", "every"):
        policy = Policy(**{"mean": {}, table: {name: limit}})
        assert judge(results(row(**{measure: good})), policy).passed
        assert judge(results(row(**{measure: limit})), policy).passed
        verdict = judge(results(row("x", **{measure: good}), row("y", **{measure: bad})), policy)
        assert verdict.passed == (table == "mean")  # 0.5 on the mean
        if table == "every":
            assert verdict.checks[0].failing == ("y",) and verdict.checks[0].value == bad
        assert not judge(results(row(**{measure: bad})), policy).passed


def test_the_worst_are_named_first() -> None:
    rows = [
        row("fine"),
        row("empty", status=ONE),
        row("turned", correlation=-0.5),
        row("both", status=BOTH),
        row("broken", status=FAILED),
        row("answer", agreement=0),
    ]
    for order in itertools.islice(itertools.permutations(rows), 0, 720, 97):
        found = [r.image for r in results(*order).worst_first()]
        assert found == ["broken", "turned", "empty", "answer", "fine", "both"]
    verdict = judge(results(*rows), Policy())
    assert not verdict.passed and [r.image for r in verdict.worst][:2] == ["broken", "turned"]


def test_images_that_failed_break_the_verdict() -> None:
    assert not judge(results(row(), row(status=FAILED)), Policy()).passed
    assert not judge(results(row(status=BOTH)), Policy()).passed  # nothing tells the reason
    assert judge(results(row(), row(status=BOTH)), Policy()).passed


def test_fail_fast_stops_only_where_nothing_could_save_the_verdict() -> None:
    policy = Policy({"min_agreement": 0.8})
    wrong = [row(agreement=0)] * 2
    assert not lost(results(*wrong), policy, 10) and lost(results(*wrong, wrong[0]), policy, 10)
    every = Policy({}, {"min_correlation": 0.5})
    assert lost(results(row(correlation=0.4)), every, 1000)
    assert not lost(results(row(correlation=0.6)), every, 1000)
    assert lost(results(row(status=FAILED)), policy, 1000)


def test_a_policy_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    asked = Policy({"min_top5": 0.7, "max_different_reason": 0.1}, {"min_correlation": -0.5})
    file.write_text(asked.to_toml())
    assert read_policy(file) == asked
    file.write_text("[every]\nmin_iou = 0.2\n")
    found = read_policy(file)
    assert found.mean == {} and found.every == {"min_iou": 0.2} and found.reason == Policy().reason


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mean]\nmin_corelation = 0.9", "Nearest: min_correlation"),
        ("[mean]\nmin_correlation = 1.5", "must be -1 to 1"),
        ("[mean]\nmin_agreement = -0.1", "must be 0 to 1"),
        ("[mean]\nmax_score_drift = -1", "must be 0 or more"),
        ("[mean]\nmax_correlation = 0.5", "unknown threshold"),
        ("[every]\nmax_different_reason = 0.5", "unknown threshold"),
        ("[mean]\nmin_agreement = true", "must be"),
        ("[mean]\nmin_agreement = nan", "must be"),
        ("[mean]\nmin_agreement = 'much'", "must be"),
        ("[average]\nmin_agreement = 0.5", "none of the tables"),
        ("mean = 3", "none of the tables"),
        ("[reason]\nmin_correlation = 0.5", "no threshold"),
        ("[mean\n", "cannot be read as a policy"),
    ],
)
def test_a_wrong_policy_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(PolicyError, match=said) as caught:
        read_policy(file)
    assert "policy.toml" in str(caught.value)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(tmp_path / "none.toml")
