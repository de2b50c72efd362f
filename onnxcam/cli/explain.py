"""``onnxcam explain``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxcam.files import shown

if TYPE_CHECKING:
    from onnxcam.explainer import Explainer
    from onnxcam.image_files import FileResult, FileRun

MANY = 8  # images of one class are no accident
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
        list[str], typer.Argument(help="Photographs, folders or patterns.", metavar="IMAGE...")
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
            "NAME[5,3] or NAME[:,3]:mean of any tensor; repeatable. Default: the predicted class.",
        ),
    ] = None,
    layer: Annotated[
        str,
        typer.Option(help="Tensor or node to explain, or -1, -2... back from the default."),
    ] = "auto",
    method: Annotated[
        list[str] | None,
        typer.Option(help="How to explain, see 'onnxcam methods'; repeatable.", metavar="NAME"),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="An image: explain how similar the model's embedding is to this one's.",
            metavar="IMAGE",
        ),
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input", help="Another input of the model.", metavar="NAME=FILE.npy|zeros|NUMBER"
        ),
    ] = None,
    score: Annotated[str, typer.Option(help="Tensor of the class scores.")] = "auto",
    preprocess: Annotated[
        str, typer.Option(help="Name or file of a card that says how images are prepared.")
    ] = "auto",
    range_: Annotated[
        str | None,
        typer.Option(
            "--range",
            help="What is black and what white in pictures of more than 8 bits.",
            metavar="LOW:HIGH",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="File of class names, one a line or JSON; or imagenet-1k, imagenet-1001.",
            metavar="FILE|NAME",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Directory to write to.")] = Path(
        "onnxcam-out"
    ),
    format_: Annotated[
        Format, typer.Option("--format", help="File format of the overlays.")
    ] = Format.jpg,
    arrays: Annotated[
        bool, typer.Option("--arrays", help="Also write maps and heatmap as .npz.")
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
) -> None:
    """Show where the model looked: one overlay per image and target, and explanations.json.

    In an explanations.json of an earlier run, the same model's other images stay; one of another
    model, layer or method is renamed explanations-1.json. Their pictures stay as they are.

    Exit code 0: done; 1: some images failed, the rest is done; 2: a mistake in the call.
    """
    from onnxcam import default_model
    from onnxcam.explainer import Explainer
    from onnxcam.image_files import explain_files
    from onnxcam.inputs.files import find_images
    from onnxcam.inputs.others import read_others
    from onnxcam.outputs import Outputs

    find_images(images, out)  # a wrong name is told before a model is loaded
    Outputs(out, format_.value, arrays)
    explainer = Explainer(
        model or default_model(),
        layer=layer,
        score=score,
        preprocess=preprocess,
        labels=labels,
        providers=provider,
        cache=cache,
        engine=engine.value,
        method=method or "grad-cam",
        pixel_range=_range(range_),
    )
    others = read_others(input_ or [])
    targets: list[Any] = list(target or [])
    if reference is not None:
        targets.append(explainer.similar_to(reference, inputs=others))
    run = explain_files(
        explainer,
        images,
        targets or None,
        out=out,
        format=format_.value,
        arrays=arrays,
        inputs=others,
    )
    if not json_:
        _introduce(explainer)
    failed, best = 0, set()
    for result in _progress(run):
        if result.error is not None:
            failed += 1
            typer.echo(f"onnxcam: skipped: {result.error}", err=True)
        elif not json_:
            _report(result, out, len(explainer.methods) > 1)
        best |= {e.target for e in result.explanations if e.rank == 1}
    if len(run.paths) >= MANY and targets == [] and len(best) == 1:
        typer.echo(
            "onnxcam: hint: every image got one class. If that is unlikely, they may be prepared "
            f"wrongly: 'onnxcam inspect {explainer.path} --try IMAGE' tries other ways.",
            err=True,
        )
    if json_:
        typer.echo(json.dumps(run.document, indent=2, ensure_ascii=False))
    if failed:
        typer.echo(f"{failed} of {len(run.paths)} images failed.", err=True)
        raise typer.Exit(1)


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise typer.BadParameter(f"'{text}': write it as 0:4095.", param_hint="--range") from None


def _introduce(explainer: Explainer) -> None:
    plan = explainer.plan
    typer.echo(f"model  {shown(explainer.path)}")
    if not plan.refusal:
        typer.echo(f"score  {plan.score} ({plan.score_note})")
    typer.echo(f"layer  {plan.layer or 'none'}")
    typer.echo(f"images prepared as in {explainer.preprocess_from}")
    if explainer.providers[0] != "CPUExecutionProvider":
        typer.echo(f"runs on {explainer.providers[0]}")


def _report(result: FileResult, out: Path, methods: bool) -> None:
    typer.echo(shown(result.path))
    for record in result.records:
        named = isinstance(record["target"], int)
        label = record["label"] or (f"class {record['target']}" if named else record["target"])
        rank = "    " if record["rank"] is None else f"{record['rank']:>4}."
        method = f"{record['method']:<20} " if methods else ""
        picture = out / record["overlay"]
        typer.echo(f"  {rank} {label:<28} {record['score']:>10.4f}  {method}{picture}")
        if record["note"]:
            typer.echo(f"       note: {record['note']}")
        for name in record["negative"]:
            typer.echo(f"       note: node '{name}' read negative activations, taken for 0")


def _progress(run: FileRun) -> Iterator[FileResult]:
    """Yield the results; show a bar when they are more than a few and someone is watching."""
    if len(run.paths) <= FEW or not sys.stderr.isatty():
        yield from run
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(run, "Explaining", total=len(run.paths), console=Console(stderr=True))
