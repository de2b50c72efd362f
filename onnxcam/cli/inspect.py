"""``onnxcam inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxcam.cli import common

if TYPE_CHECKING:
    from onnxcam.surgeon.inspect import Inspection


def inspect(
    model: Annotated[Path, typer.Argument(help="The .onnx file.", metavar="MODEL")],
    score: common.Score = "auto",
    try_: Annotated[
        str | None,
        typer.Option(
            "--try",
            help="Prepare this photograph by every known card, and show how sure the model is.",
            metavar="IMAGE",
        ),
    ] = None,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List every tensor: any of them can be explained.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """List what can be explained in a model: score, layers, operators without a rule."""
    if try_ is not None:
        _try(model, score, try_)
        return
    from onnxcam.surgeon.inspect import inspect as look
    from onnxcam.surgeon.inspect import tensors as every

    if tensors:
        for facts, operator in every(model):
            typer.echo(f"{facts}  {operator}")
        return
    found = look(model, score)
    if json_:
        typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        _show(found)


def _try(model: Path, score: str, image: str) -> None:
    import warnings

    from onnxcam.explainer import Explainer
    from onnxcam.trials import table, try_cards

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that preprocessing is guessed is known
        explainer = Explainer(model, score=score, providers="cpu")
    for line in table(try_cards(explainer, image)):
        typer.echo(line)
    typer.echo("A sure answer is no proof. Is the class what the picture shows?")


def _show(found: Inspection) -> None:
    facts = found.facts
    typer.echo(f"file      {facts.file}")
    typer.echo(f"exporter  {facts.producer or 'not named'}")
    typer.echo(f"opset     {facts.opset}, IR {facts.ir_version}, {facts.nodes} nodes")
    for tensor in facts.inputs:
        explained = found.image is not None and tensor.name == found.image.name
        mark = f" ({found.image.kind})" if explained and found.image else ""
        typer.echo(f"input     {tensor}{mark}")
    for tensor in facts.outputs:
        typer.echo(f"output    {tensor}")
    if found.score is not None:
        typer.echo(f"score     {found.score}")
        for operator in found.passed:
            typer.echo(f"          before {operator}")
    if found.detector:
        typer.echo(f"detector  boxes and scores: {', '.join(found.detector)}; -t box:0, box:LABEL")
        for tensor in found.scales:
            typer.echo(f"layer     {tensor} (one scale)")
        for problem in found.problems:
            typer.echo(f"problem   {problem}")
        return
    typer.echo("layers    the default is marked *; --layer takes a number or a name")
    for layer in found.layers:
        mark = "*" if layer.tensor.name == found.default else " "
        place = "auto" if layer.place == 0 else f"{layer.place:+d}"
        stride = "" if layer.stride is None else f"  stride {'x'.join(map(str, layer.stride))}"
        typer.echo(f"  {mark} {place:>5}  {layer.tensor}{stride}")
    if found.default is not None and all(c.tensor.name != found.default for c in found.layers):
        typer.echo(f"  *  auto  {found.default} (tokens, or channels last)")
    elif not found.layers:
        typer.echo("          none")
    for operator, entry in found.missing.items():
        where = "after the default layer" if entry["after_layer"] else "before the default layer"
        typer.echo(f"no rule   {operator}: {entry['nodes']} node(s), {where}")
    if not found.missing and found.score is not None:
        typer.echo("no rule   none: every operator from image to score has a gradient rule")
    for problem in found.problems:
        typer.echo(f"problem   {problem}")
