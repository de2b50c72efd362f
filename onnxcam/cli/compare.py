"""``onnxcam compare``."""

from __future__ import annotations

from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxcam.cli import voice
from onnxcam.cli.verdict import conclude, introduce, warn_of_noise
from onnxcam.errors import OnnxcamError
from onnxcam.files import shown

if TYPE_CHECKING:
    from onnxcam.compare.locate import Located
    from onnxcam.compare.places import Places
    from onnxcam.compare.policy import Policy
    from onnxcam.compare.setup import Options
    from onnxcam.compare.sides import Side


class RuntimeName(StrEnum):
    """What runs the candidate."""

    onnxruntime = "onnxruntime"
    openvino = "openvino"


def compare(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="Two .onnx files, then images, folders or patterns. With --reference, and to "
            "record or to suggest thresholds, one .onnx file.",
            metavar="REFERENCE CANDIDATE IMAGE...",
        ),
    ] = None,
    layer: Annotated[
        str, typer.Option(help="The reference's tensor to explain.", metavar="NAME")
    ] = "auto",
    candidate_layer: Annotated[
        str, typer.Option(help="The candidate's; found by name, shape and values.", metavar="NAME")
    ] = "auto",
    score: Annotated[
        str, typer.Option(help="The reference's class scores.", metavar="NAME")
    ] = "auto",
    candidate_score: Annotated[str, typer.Option(help="The candidate's.", metavar="NAME")] = "auto",
    method: Annotated[
        str,
        typer.Option(
            help="How both are explained, by a method of one run: auto is grad-cam, and of boxes "
            "layer-cam.",
            metavar="NAME",
        ),
    ] = "auto",
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="What both are fed in another input of this name; a text where a card tells its "
            "vocabulary.",
            metavar="NAME=FILE.npy|zeros|NUMBER|TEXT",
        ),
    ] = None,
    preprocess: Annotated[
        str, typer.Option(help="Card that says how images are prepared, for both.")
    ] = "auto",
    candidate_preprocess: Annotated[
        str | None,
        typer.Option(
            help="A card for the candidate alone, or auto: as it would be explained by itself."
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="File of class names.", metavar="FILE")
    ] = None,
    provider: Annotated[
        str, typer.Option(help="auto, cpu, cuda, or ONNX Runtime's name of a provider.")
    ] = "auto",
    candidate_provider: Annotated[
        str | None, typer.Option(help="Another provider for the candidate.")
    ] = None,
    runtime: Annotated[
        RuntimeName, typer.Option(help="What runs the candidate (extra openvino).")
    ] = RuntimeName.onnxruntime,
    min_agreement: Annotated[
        float | None, typer.Option(help="Least share of images with the same class. [0.85]")
    ] = None,
    min_correlation: Annotated[
        float | None, typer.Option(help="Least mean correlation of the maps. [0.9]")
    ] = None,
    max_peak_shift: Annotated[
        float | None,
        typer.Option(help="Largest mean distance of the peaks, of the input's diagonal. [0.1]"),
    ] = None,
    every: Annotated[
        bool, typer.Option("--every", help="The given thresholds hold for every image.")
    ] = False,
    policy: Annotated[
        Path | None, typer.Option(help="Thresholds in a TOML file.", metavar="FILE.toml")
    ] = None,
    suggest_thresholds: Annotated[
        bool,
        typer.Option(
            "--suggest-thresholds", help="Print a policy: REFERENCE against itself under noise."
        ),
    ] = False,
    locate: Annotated[
        bool, typer.Option("--locate", help="Also walk the layers: where do they diverge?")
    ] = False,
    out: Annotated[Path, typer.Option("-o", "--out", help="File of results.")] = Path(
        "compare.json"
    ),
    report: Annotated[
        Path | None, typer.Option(help="Also an HTML page (extra report).", metavar="FILE.html")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Also JUnit XML.", metavar="FILE.xml")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Record the reference's run.", metavar="FILE.npz")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="A recorded run in place of REFERENCE.", metavar="FILE.npz"),
    ] = None,
    rejudge: Annotated[
        Path | None,
        typer.Option(help="Judge results anew; nothing is run.", metavar="RESULTS.json"),
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop once no image could save the verdict.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files of an earlier run.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was interrupted.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep the instrumented models on disk.")
    ] = True,
    verbose: voice.Verbose = False,
    quiet: voice.Quiet = False,
) -> None:
    """Does CANDIDATE give the same answers as REFERENCE, for the same reasons?

    Both explain the class that the reference predicts, or of detectors its surest box, from images
    that are prepared as the reference's.

    Exit code 0: it keeps to the thresholds; 2: a mistake in the call; 3: it does not, or an image
    could not be compared; the worst images are named.
    """
    from onnxcam.compare.places import Places
    from onnxcam.compare.setup import Options

    voice.tune(verbose=verbose, quiet=quiet)
    given = {
        "min_agreement": min_agreement,
        "min_correlation": min_correlation,
        "max_peak_shift": max_peak_shift,
    }
    thresholds = _policy(policy, {k: v for k, v in given.items() if v is not None}, every)
    if resume and (save or overwrite):
        raise typer.BadParameter("goes without --save and --overwrite.", param_hint="--resume")
    places = Places(out, report, junit, save, overwrite, resume)
    if rejudge is not None:
        _rejudge(rejudge, arguments, thresholds, places, json_)
        return
    options = Options(
        layer=layer,
        candidate_layer=candidate_layer,
        score=score,
        candidate_score=candidate_score,
        method=method,
        preprocess=preprocess,
        candidate_preprocess=candidate_preprocess,
        labels=labels,
        provider=provider,
        candidate_provider=candidate_provider,
        runtime=runtime.value,
        inputs=tuple(input_ or ()),
        cache=cache,
    )
    models, images = _split(arguments or [])
    if suggest_thresholds:
        _suggest(_one(models, "--suggest-thresholds"), images, options)
    elif save is not None and len(models) == 1 and reference is None:
        _record(models[0], images, options, places)
    else:
        _compare(models, reference, images, options, thresholds, places, fail_fast, locate, json_)


def _compare(
    models: list[Path],
    recorded: Path | None,
    images: list[str],
    options: Options,
    thresholds: Policy,
    places: Places,
    fail_fast: bool,
    locate: bool,
    json_: bool,
) -> None:
    from onnxcam.compare.comparison import Comparison, walked
    from onnxcam.compare.recorded import Recorded
    from onnxcam.compare.setup import pair, reference_side

    if len(models) != (1 if recorded else 2):
        what = "CANDIDATE, an .onnx file," if recorded else "REFERENCE and CANDIDATE, .onnx files,"
        raise typer.BadParameter(f"{what} come first, then images.")
    usual = type(options)()
    for name in ("layer", "score", "preprocess", "labels"):
        if recorded and getattr(options, name) != getattr(usual, name):
            raise typer.BadParameter(
                "belongs to the run that was recorded.", param_hint=f"--{name}"
            )
    if locate and recorded:
        raise typer.BadParameter("needs REFERENCE, not a recorded run.", param_hint="--locate")
    paths = _find(images, places.results or Path())
    _check_places(places)
    side: Side = Recorded(recorded) if recorded else reference_side(models[0], options)
    both = pair(side, models[-1], options, paths)
    run = Comparison(both, paths, thresholds, places, fail_fast)
    if not json_:
        introduce(both)
    for _ in voice.watched(run, len(paths), "Comparing"):
        pass
    results = run.finish()
    warn_of_noise(run)
    located: Located | OnnxcamError | None = None
    if locate:
        try:
            located = walked(both, paths)
        except OnnxcamError as error:
            located = error  # told after the measures, which stand
    conclude(results, thresholds, places, json_, located)


def _find(images: list[str], skip: Path) -> list[Path]:
    """Return the images; one that is named and not there is a mistake in the call."""
    from onnxcam.errors import ImageError
    from onnxcam.inputs.files import find_images

    paths = find_images(images, skip)
    absent = [path for path in paths if not path.exists()]
    if absent:
        more = f" (and {len(absent) - 1} more)" if absent[1:] else ""
        raise ImageError(f"{shown(absent[0])}{more}: no such file or folder. Nothing was compared.")
    return paths


def _check_places(places: Places) -> None:
    places.check()
    if places.report is not None:
        from onnxcam.compare.page import check_jinja

        check_jinja()


def _rejudge(
    path: Path, arguments: list[str] | None, thresholds: Policy, places: Places, json_: bool
) -> None:
    from dataclasses import replace

    from onnxcam.compare.results import read_results

    if arguments:
        raise typer.BadParameter("takes no models and no images.", param_hint="--rejudge")
    if places.save:
        raise typer.BadParameter("runs nothing that --save could keep.", param_hint="--rejudge")
    places = replace(places, results=None)
    _check_places(places)
    conclude(read_results(path), thresholds, places, json_, None)


def _record(model: Path, images: list[str], options: Options, places: Places) -> None:
    from dataclasses import replace

    from onnxcam.compare.comparison import record
    from onnxcam.compare.feeding import Feeding
    from onnxcam.compare.inputs import check_names
    from onnxcam.compare.setup import reference_side

    assert places.save is not None
    paths = _find(images, places.save)
    replace(places, results=None).check()
    side = reference_side(model, options)
    check_names(options.inputs, side.explainer.others.names)
    feeding = Feeding(side.about, side.about.image, side.about.ends)
    rows = record(side, feeding, paths, places.save)
    for _ in voice.watched(rows, len(paths), "Recording"):
        pass
    voice.say(f"{len(paths)} images recorded in {shown(places.save)}")


def _suggest(model: Path, images: list[str], options: Options) -> None:
    from onnxcam.compare.inputs import check_names
    from onnxcam.compare.setup import reference_side
    from onnxcam.compare.suggest import LEVELS, against_itself, suggested

    paths = _find(images, Path("compare.json"))
    side = reference_side(model, options)
    check_names(options.inputs, side.explainer.others.names)
    run = chain.from_iterable(against_itself(side, paths))
    rows = list(voice.watched(run, len(paths), "Comparing"))
    typer.echo(f"# {shown(model)} against itself under noise of {LEVELS:g} grey levels,")
    typer.echo(f"# {len(rows)} images; for --policy FILE")
    typer.echo(suggested(rows).to_toml())


def _split(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """Return the models that come first, at most two, and the images."""
    models = []
    for argument in arguments[:2]:
        if Path(argument).suffix.lower() != ".onnx":
            break
        models.append(Path(argument))
    images = arguments[len(models) :]
    if models and not images:
        raise typer.BadParameter("no images: files, folders or patterns come after the models.")
    return models, images


def _one(models: list[Path], option: str) -> Path:
    if len(models) != 1:
        raise typer.BadParameter("takes REFERENCE alone, then images.", param_hint=option)
    return models[0]


def _policy(file: Path | None, given: dict[str, float], every: bool) -> Policy:
    from onnxcam.compare.policy import Policy, read_policy

    if file is not None:
        if given or every:
            raise typer.BadParameter("goes without other thresholds.", param_hint="--policy")
        return read_policy(file)
    usual = Policy()
    if every and not given:
        raise typer.BadParameter(
            "needs a threshold, --min-correlation for one.", param_hint="--every"
        )
    return Policy({}, given) if every else Policy({**usual.mean, **given})
