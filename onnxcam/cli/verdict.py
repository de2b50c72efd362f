"""What ``onnxcam compare`` says of its results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from onnxcam.cli import voice
from onnxcam.errors import OnnxcamError
from onnxcam.files import shown

if TYPE_CHECKING:
    from onnxcam.compare.comparison import Comparison
    from onnxcam.compare.locate import Located
    from onnxcam.compare.places import Places
    from onnxcam.compare.policy import Policy, Verdict
    from onnxcam.compare.results import Results
    from onnxcam.compare.setup import Pair

FAILED = 3  # exit code
FEW = 2  # tensors below which nothing is said of where models diverge


def introduce(both: Pair) -> None:
    """Say what is compared, and how it was matched."""
    for name in ("reference", "candidate"):
        about = getattr(both, name).about
        voice.say(f"{name}  {shown(about.file)} ({about.runtime})")
    voice.say(f"layers     {both.matched['layer']}")
    voice.say(f"scores     {both.matched['score']}")
    how = both.matched["preprocess"]
    voice.say(how if both.reference.about.preprocess else f"inputs     {how}")
    if "inputs" in both.matched:
        voice.say(f"fed, too   {both.matched['inputs']}")


def warn_of_noise(run: Comparison) -> None:
    """Warn where most images look like noise."""
    if run.noise * 2 > min(16, len(run.paths)):
        voice.warn(
            "the images look like random noise, on which answers and maps tell nothing of "
            "photographs: a broken candidate may pass, and a good one fail. Give photographs."
        )


def conclude(
    results: Results,
    thresholds: Policy,
    places: Places,
    json_: bool,
    located: Located | OnnxcamError | None,
) -> None:
    """Judge, write, print; leave with 3 where a threshold is broken.

    Args:
        results: what was found.
        thresholds: by which it is judged.
        places: what is written.
        json_: whether JSON is printed.
        located: where the models diverge, or why that was not found; ``None``: it was not asked.

    Raises:
        OnnxcamError: ``located``, after all else.
    """
    from onnxcam.compare.comparison import summary
    from onnxcam.compare.policy import judge

    verdict = judge(results, thresholds)
    if places.report is not None:
        from onnxcam.compare.page import save_page

        save_page(places.report, results, thresholds, verdict)
    if places.junit is not None:
        from onnxcam.compare.junit import save_junit

        save_junit(places.junit, results, thresholds, verdict)
    if json_:
        found = summary(results, thresholds, verdict)
        if isinstance(located, OnnxcamError):
            found["located"] = {"error": shown(located)}
        elif located is not None:
            found["located"] = {
                "first": located.first and vars(located.first),
                "nodes_to_exclude": list(located.exclude),
                "steps": [vars(step) for step in located.steps],
            }
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _table(results, thresholds, verdict)
        if located is not None and not isinstance(located, OnnxcamError):
            _tell(located)
    if isinstance(located, OnnxcamError) and verdict.passed:
        raise located
    if isinstance(located, OnnxcamError):
        voice.complain(f"onnxcam: error: {located}")
    if not verdict.passed:
        if json_:
            names = ", ".join(row.image for row in verdict.worst)
            voice.complain(f"onnxcam: thresholds broken; the worst images: {names}")
        raise typer.Exit(FAILED)


def _table(results: Results, thresholds: Policy, verdict: Verdict) -> None:
    from onnxcam.compare.junit import told
    from onnxcam.compare.policy import other_reason
    from onnxcam.compare.results import meaning
    from onnxcam.compare.totals import totals

    voice.say(f"{len(results.rows)} images; means, and their 95 % confidence intervals")
    for name, total in totals(results.rows).items():
        reach = f"{total.low:.4f} to {total.high:.4f}"
        what = meaning(name, results.reference.boxes)
        voice.say(f"  {name:<17} {total.mean:7.4f}   {reach:<18} {what}")
    if boxes := results.boxes():
        voice.say("  boxes" + "".join(f"  {kind}: {n}" for kind, n in boxes.items()))
    different = sum(other_reason(row, thresholds) for row in results.rows)
    voice.say(f"  same answer, different reason: {different}")
    voice.say("".join(f"  {s}: {n}" for s, n in results.counts().items()))
    for check in verdict.checks:
        voice.say(f"{'kept  ' if check.passed else 'BROKEN'} {check}")
    if results.stopped:
        voice.say("stopped early: no further image could save the verdict")
    if verdict.passed:
        voice.say("passed")
        return
    voice.complain("onnxcam: failed; the worst images:")
    for row in verdict.worst:
        voice.complain(f"  {row.image}: {told(row)}")


def _tell(located: Located) -> None:
    count = len(located.steps)
    if count < FEW:
        voice.say(
            f"layer by layer: {count} tensor(s) of both models go together, which is too few to "
            "tell whether and where they diverge"
        )
        return
    voice.say("layer by layer: signal-to-noise ratio in dB, cosine, node")
    for step in located.steps:
        mark = " <- first below 20 dB" if step == located.first else ""
        name = step.node or step.tensor
        voice.say(f"  {step.sqnr:6.1f}  {step.cosine:7.4f}  {name} ({step.operator}){mark}")
    if located.first is None:
        voice.say(f"none of {count} tensors is below 20 dB: there the models do not diverge")
    else:
        voice.say("sources of the error, for onnxruntime's quantize_static:")
        voice.say(f"  {located.to_python()}")
