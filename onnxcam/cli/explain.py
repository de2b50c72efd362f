"""``onnxcam explain``."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxcam.cli import common, voice
from onnxcam.files import shown

if TYPE_CHECKING:
    from onnxcam.explainer import Explainer
    from onnxcam.image_files import FileResult

MANY = 8  # images of one class are no accident
MOST_LISTED = 20  # detections
MOST_NAMED = 5  # labels of an animation's frames
FEW = 3  # more images than this get a progress bar


class EngineName(StrEnum):
    """Gradient engine."""

    rules = "rules"
    ort = "ort"


class Format(StrEnum):
    """File formats of overlays."""

    png = "png"
    jpg = "jpg"
    webp = "webp"


def explain(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Photographs, GIFs, videos, .npy, .wav or NIfTI files, folders or patterns.",
            metavar="IMAGE...",
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option("-m", "--model", help="The .onnx file. Default: the embedded one."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "-t",
            "--target",
            help="Class index, label, top:K, 'dog - cat', 'best of dog,cat', region:CLASS, "
            "step:12, 'text:a boot', NAME[5,3] or NAME[:,3]:mean of any tensor; repeatable. "
            "Default: the predicted class.",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Tensor or node to explain, or -1, -2... back from the default; repeatable. "
            "mean:A,B, max:A,B or product:A,B: one map of several. sweep: from deep to shallow, "
            "with a contact sheet.",
            metavar="NAME",
        ),
    ] = None,
    grid: common.Grid = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="How to explain, see 'onnxcam methods'; repeatable.", metavar="NAME"),
    ] = None,
    against: Annotated[
        bool,
        typer.Option("--against", help="Show what speaks against the target: its counterfactual."),
    ] = False,
    reference: common.Reference = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(
            help="A picture as large as the photograph, black outside: with -t region:CLASS the "
            "class's scores in there; repeatable.",
            metavar="FILE.png",
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="A pixel of the photograph: the class predicted there, or with -t region:CLASS "
            "that class's score there; repeatable.",
            metavar="X,Y",
        ),
    ] = None,
    input_: common.Input = None,
    score: common.Score = "auto",
    preprocess: common.Preprocess = "auto",
    range_: Annotated[
        str | None,
        typer.Option(
            "--range",
            help="What is black and what white in pictures of more than 8 bits.",
            metavar="LOW:HIGH",
        ),
    ] = None,
    labels: common.Labels = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Directory to write to.")] = Path(
        "onnxcam-out"
    ),
    format_: Annotated[
        Format, typer.Option("--format", help="File format of the overlays.")
    ] = Format.jpg,
    arrays: Annotated[
        bool, typer.Option("--arrays", help="Also write maps and heatmap as .npz.")
    ] = False,
    alpha: Annotated[
        float, typer.Option(help="Opacity of hot areas, 0 to 1; cold ones are transparent.")
    ] = 0.6,
    colormap: Annotated[
        str, typer.Option(help="Colours of the heat, a name of the package cmap.", metavar="NAME")
    ] = "turbo",
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Resize maps bicubically in the pictures.")
    ] = False,
    caption: Annotated[
        bool,
        typer.Option(
            "--caption", help="Label, score, method and layer below the picture, and a colour bar."
        ),
    ] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="The photograph to the left of each overlay.")
    ] = False,
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            help="Also draw the map's box (map), or annotated ones: a COCO .json, a Pascal VOC "
            ".xml or a folder of these; repeatable.",
            metavar="map|FILE|FOLDER",
        ),
    ] = None,
    sheet: Annotated[
        bool,
        typer.Option(
            "--sheet", help="Also one contact sheet an image, of all targets, methods and layers."
        ),
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the records as JSON instead of text.")
    ] = False,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Keep the instrumented model on disk."),
    ] = True,
    provider: Annotated[
        str,
        typer.Option(
            help="auto: the GPU where it can be used, else the CPU; cuda: the GPU or an error; "
            "cpu; or ONNX Runtime's name of a provider."
        ),
    ] = "auto",
    engine: Annotated[
        EngineName,
        typer.Option(
            help="Gradient engine: onnxcam's rules, or ONNX Runtime's training build "
            "(extra ort-training)."
        ),
    ] = EngineName.rules,
    verbose: voice.Verbose = False,
    quiet: voice.Quiet = False,
) -> None:
    """Show where the model looked: one overlay per image and target, and explanations.json.

    In an explanations.json of an earlier run, the same model's other images stay; one of another
    model, layer or method is renamed explanations-1.json. Their pictures stay as they are.

    Exit code 0: done; 1: some images failed, the rest is done; 2: a mistake in the call.
    """
    from onnxcam import default_model
    from onnxcam.explainer import Explainer
    from onnxcam.image_files import explain_files
    from onnxcam.imaging.style import Style
    from onnxcam.inputs.others import read_others
    from onnxcam.outputs import Outputs

    voice.tune(verbose=verbose, quiet=quiet)
    ready = _are_ready(images, out, reference)  # a wrong name is told before a model is loaded
    marked, of_map = [b for b in boxes or [] if b != "map"], "map" in (boxes or [])
    looks: Any = {"smooth": smooth, "caption": caption, "side_by_side": side_by_side}
    style = Style(alpha, colormap, map_box=of_map, **looks)
    Outputs(out, format_.value, arrays)
    with _no_guess(ready):
        explainer = Explainer(
            model or default_model(),
            layer=layer or "auto",
            score=score,
            preprocess=preprocess,
            labels=labels,
            providers=provider,
            cache=cache,
            engine=engine.value,
            method=_methods(method or [], against),
            pixel_range=_range(range_),
            grid=read_grid(grid),
        )
    others = read_others(input_ or [], explainer.others.texts)
    targets: list[Any] = list(target or [])
    if mask or at:
        from onnxcam.targets.pixels import narrowed

        detector = explainer.plan.detector is not None
        targets = list(narrowed(targets, mask or [], at or [], detector=detector))
    if reference is not None:
        targets.append(explainer.similar_to(reference, inputs=others))
    looks = {"format": format_.value, "arrays": arrays, "style": style, "sheet": sheet}
    looks |= {"out": out, "inputs": others, "annotations": marked}
    run = explain_files(explainer, images, targets or None, **looks)
    if not json_:
        _introduce(explainer, ready)
    failed, best = 0, set()
    bar = voice.watched(run, len(run.paths), "Explaining") if len(run.paths) > FEW else run
    for result in bar:
        if result.error is not None:
            failed += 1
            voice.complain(f"onnxcam: skipped: {result.error}")
        elif not json_:
            _report(result, out, len(explainer.methods) > 1, len(explainer.plan.layers) > 1)
        best |= {e.target for e in result.explanations if e.rank == 1}
    if len(run.paths) >= MANY and targets == [] and len(best) == 1:
        _doubt(explainer)
    if json_:
        typer.echo(json.dumps(run.document, indent=2, ensure_ascii=False))
    if failed:
        voice.complain(f"{failed} of {len(run.paths)} images failed.")
        raise typer.Exit(1)


def _are_ready(images: list[str], out: Path, reference: Path | None) -> bool:
    """Whether all that is read are ready arrays, which no preprocessing touches."""
    from onnxcam.inputs.arrays import is_taken_as_it_is
    from onnxcam.inputs.files import find_images

    paths = find_images(images, out)
    return all(map(is_taken_as_it_is, paths if reference is None else [*paths, reference]))


@contextmanager
def _no_guess(ready: bool) -> Iterator[None]:
    """Where arrays are ready, leave out the warning of how photographs would be prepared."""
    from onnxcam.inputs.cards import GUESSED

    with warnings.catch_warnings():
        if ready:
            warnings.filterwarnings("ignore", f".*{GUESSED}", UserWarning)
        yield


def _doubt(explainer: Explainer) -> None:
    """Warn that every image got one class."""
    voice.warn(
        "every image got one class. If that is unlikely, they may be prepared "
        f"wrongly: 'onnxcam inspect {explainer.path} --try IMAGE' tries other ways.",
        kind="hint",
    )


def _methods(named: list[str], against: bool) -> list[str] | str:
    """Return the methods; what speaks against a target is a method of its own."""
    if against and named:
        raise typer.BadParameter(
            "it is a method itself, leave out --method.", param_hint="--against"
        )
    return "counterfactual" if against else named or "auto"


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise typer.BadParameter(f"'{text}': write it as 0:4095.", param_hint="--range") from None


def read_grid(text: str | None) -> tuple[int, int] | None:
    """Return rows and columns of what a user wrote as ``14x14``."""
    if text is None:
        return None
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise typer.BadParameter(f"'{text}': write it as 14x14.", param_hint="--grid")
    return int(rows), int(columns)


def _introduce(explainer: Explainer, ready: bool) -> None:
    plan = explainer.plan
    voice.say(f"model  {shown(explainer.path)}")
    if not plan.refusal:
        voice.say(f"score  {plan.score} ({plan.score_note})")
    for layer in plan.layers or ("none",):
        voice.say(f"layer  {layer}")
    known = explainer.preprocess is not None and not ready
    how = f"images prepared as in {explainer.preprocess_from}"
    voice.say(how if known else "input  taken as it is")
    if explainer.providers[0] != "CPUExecutionProvider":
        voice.say(f"runs on {explainer.providers[0]}")


def _report(result: FileResult, out: Path, methods: bool, layers: bool) -> None:
    voice.say(shown(result.path))
    detections: list[Any] = next((r["detections"] for r in result.records if "detections" in r), [])
    for number, one in enumerate(detections[:MOST_LISTED]):
        box = " ".join(f"{v:.0f}" for v in (one["box"] or {}).values())
        name = one["label"] or f"class {one['class']}"
        voice.say(f"  box:{number:<3} {name:<24} {one['probability']:.2f}  {box}")
    if len(detections) > MOST_LISTED:
        voice.say(f"  and {len(detections) - MOST_LISTED} more, see explanations.json")
    if not result.records and result.error is None:
        voice.say("  no detections")
    for record in result.records:
        label = _name(record)
        rank = "    " if record["rank"] is None else f"{record['rank']:>4}."
        method = f"{record['method']:<20} " if methods else ""
        layer = f"{record['layer']}  " if layers and "detection" not in record else ""
        picture = out / record["overlay"]
        voice.say(f"  {rank} {label:<28} {record['score']:>10.4f}  {method}{layer}{picture}")
        if " before any " in record["score_name"]:
            voice.say(f"       score: {record['score_name']}")
        if record["note"]:
            voice.say(f"       note: {record['note']}")
        if "frames" in record:
            labels = Counter(_name(r) for r in record["frames"])
            said = ", ".join(f"{name} {n}" for name, n in labels.most_common(MOST_NAMED))
            voice.say(f"       {len(record['frames'])} frames: {said}")
        for name in record["negative"]:
            voice.say(f"       note: node '{name}' read negative activations, taken for 0")
    for name in result.sheets:
        voice.say(f"  sheet  {out / name}")


def _name(record: dict[str, Any]) -> str:
    named = isinstance(record["target"], int)
    target = f"class {record['target']}" if named else record["target"]
    return str(record["label"] or target)
