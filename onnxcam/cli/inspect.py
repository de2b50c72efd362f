"""``onnxcam inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from onnxcam.surgeon.inspect import Inspection


def inspect(
    model: Annotated[Path, typer.Argument(help="The .onnx file.", metavar="MODEL")],
    score: Annotated[str, typer.Option(help="Tensor of the class scores.")] = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """List what can be explained in a model: score, layers, operators without a rule."""
    from onnxcam.surgeon.inspect import inspect as look

    found = look(model, score)
    if json_:
        typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        _show(found)


def _show(found: Inspection) -> None:
    facts = found.facts
    typer.echo(f"file      {facts.file}")
    typer.echo(f"exporter  {facts.producer or 'not named'}")
    typer.echo(f"opset     {facts.opset}, IR {facts.ir_version}, {facts.nodes} nodes")
    for tensor in facts.inputs:
        mark = " (image)" if found.image and tensor.name == found.image.name else ""
        typer.echo(f"input     {tensor}{mark}")
    for tensor in facts.outputs:
        typer.echo(f"output    {tensor}")
    if found.score is not None:
        typer.echo(f"score     {found.score}")
        for operator in found.passed:
            typer.echo(f"          before {operator}")
    typer.echo("layers    the default is marked *; --layer takes a number or a name")
    for layer in found.layers:
        mark = "*" if layer.tensor.name == found.default else " "
        place = "auto" if layer.place == 0 else f"{layer.place:+d}"
        stride = "" if layer.stride is None else f"  stride {'x'.join(map(str, layer.stride))}"
        typer.echo(f"  {mark} {place:>5}  {layer.tensor}{stride}")
    if not found.layers:
        typer.echo("          none")
    for operator, entry in found.missing.items():
        where = "after the default layer" if entry["after_layer"] else "before the default layer"
        typer.echo(f"no rule   {operator}: {entry['nodes']} node(s), {where}")
    if not found.missing and found.score is not None:
        typer.echo("no rule   none: every operator from image to score has a gradient rule")
    for problem in found.problems:
        typer.echo(f"problem   {problem}")
