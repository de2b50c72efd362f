"""``onnxcam explain``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxcam._version import __version__
from onnxcam.errors import ImageError, NotFiniteError, PictureError

if TYPE_CHECKING:
    from onnxcam.explainer import Explainer
    from onnxcam.explanation import Explanation

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
            help="Class index, label or top:K; repeatable. Default: the predicted class.",
        ),
    ] = None,
    layer: Annotated[
        str,
        typer.Option(help="Tensor or node to explain, or -1, -2... back from the default."),
    ] = "auto",
    score: Annotated[str, typer.Option(help="Tensor of the class scores.")] = "auto",
    preprocess: Annotated[
        str, typer.Option(help="Name or file of a card that says how images are prepared.")
    ] = "auto",
    labels: Annotated[
        Path | None, typer.Option(help="File of class names, one a line or JSON.")
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

    Exit code 0: done; 1: some images failed, the rest is done; 2: a mistake in the call.
    """
    from onnxcam import default_model
    from onnxcam.cli.images import find_images
    from onnxcam.cli.outputs import Outputs
    from onnxcam.explainer import Explainer
    from onnxcam.runtime.batching import ahead

    paths = find_images(images, out)
    outputs = Outputs(out, format_.value, arrays)
    explainer = Explainer(
        model or default_model(),
        layer=layer,
        score=score,
        preprocess=preprocess,
        labels=labels,
        providers=provider,
        cache=cache,
        engine=engine.value,
    )
    explainer.resolve(target)  # a wrong target is found before the first image is read
    if not json_:
        _introduce(explainer)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    document = {
        "onnxcam": __version__,
        "model": describe(explainer),
        "images": done,
        "failed": failed,
    }

    def look(path: Path) -> list[Explanation] | ImageError | NotFiniteError:
        try:
            return explainer.explain(path, target)
        except (ImageError, NotFiniteError) as error:
            return error

    try:
        # The next image is explained while the overlays of the present one are written.
        for path, found in zip(_progress(paths), ahead(paths, look), strict=True):
            try:
                if isinstance(found, Exception):
                    raise found
                records = outputs.save(found, path.stem)
            except (ImageError, NotFiniteError, PictureError) as error:
                failed.append({"image": str(path), "error": str(error)})
                what = str(error) if isinstance(error, ImageError) else f"{path}: {error}"
                typer.echo(f"onnxcam: skipped: {what}", err=True)
                continue
            done.append({"image": str(path), "explanations": records})
            if not json_:
                _report(records, out)
    finally:  # whatever ends the run early, what is done is recorded
        if done:
            outputs.write_records(document)
    if json_:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    if failed:
        typer.echo(f"{len(failed)} of {len(paths)} images failed.", err=True)
        raise typer.Exit(1)


def describe(explainer: Explainer) -> dict[str, Any]:
    """Return what was chosen in the model, for the records."""
    plan = explainer.plan
    return {
        "file": str(explainer.path),
        "layer": plan.layer.name,
        "layer_shape": None if plan.layer.shape is None else list(plan.layer.shape),
        "score": plan.score,
        "score_note": plan.score_note,
        "preprocess": explainer.preprocess_from,
        "providers": explainer.providers,
    }


def _introduce(explainer: Explainer) -> None:
    plan = explainer.plan
    typer.echo(f"model  {explainer.path}")
    typer.echo(f"score  {plan.score} ({plan.score_note})")
    typer.echo(f"layer  {plan.layer}")
    typer.echo(f"images prepared as in {explainer.preprocess_from}")
    if explainer.providers[0] != "CPUExecutionProvider":
        typer.echo(f"runs on {explainer.providers[0]}")


def _report(records: list[dict[str, Any]], out: Path) -> None:
    typer.echo(str(records[0]["image"]) if records else "")
    for record in records:
        label = record["label"] or f"class {record['target']}"
        typer.echo(
            f"  {record['rank']:>4}. {label:<28} {record['score']:>10.4f}"
            f"  {out / record['overlay']}"
        )


def _progress(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the paths; show a bar when they are more than a few and someone is watching."""
    if len(paths) <= FEW or not sys.stderr.isatty():
        yield from paths
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(paths, "Explaining", console=Console(stderr=True))
