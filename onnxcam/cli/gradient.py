"""``onnxcam gradient``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from onnxcam.cli.explain import EngineName


class RectifierPolicy(StrEnum):
    """What rectifiers do to cotangents."""

    standard = "standard"
    guided = "guided"
    deconvnet = "deconvnet"


def gradient(
    model: Annotated[Path, typer.Argument(help="The .onnx file.", metavar="MODEL")],
    of: Annotated[str, typer.Option(help="The differentiated tensor.", metavar="TENSOR")],
    to: Annotated[
        list[str],
        typer.Option(help="Tensor to differentiate with respect to; repeatable.", metavar="TENSOR"),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .onnx file to write.")],
    policy: Annotated[
        RectifierPolicy, typer.Option(help="What rectifiers do to the gradient.")
    ] = RectifierPolicy.standard,
    engine: Annotated[
        EngineName,
        typer.Option(help="Who differentiates: onnxcam's rules or ONNX Runtime's builder."),
    ] = EngineName.rules,
    rows: Annotated[
        int | None,
        typer.Option(help="Number of cotangents; without it every run chooses.", metavar="T"),
    ] = None,
    blocked: Annotated[
        bool,
        typer.Option("--blocked", help="One cotangent, fast in ONNX Runtime on CPU."),
    ] = False,
) -> None:
    """Write a model that gives the gradient of any tensor with respect to any others."""
    from onnxcam.gradient.differentiate import RECTIFIERS, add_gradients
    from onnxcam.model.write import write_model

    made = add_gradients(
        model, of, to, policy=policy.value, engine=engine.value, rows=rows, blocked=blocked
    )
    write_model(made, out, model)
    typer.echo(f"wrote     {out}")
    typer.echo(f"input     {_described(made.graph.input[-1])}")
    for output in made.graph.output[-len(dict.fromkeys(to)) :]:
        typer.echo(f"output    {_described(output)}")
    if policy is not RectifierPolicy.standard:
        changed = {p.key: p.value for p in made.metadata_props}[RECTIFIERS].split("\n")
        count = len([name for name in changed if name])
        typer.echo(f"{policy.value:<9} {count} rectifier(s)")
        if not count:
            typer.echo(
                f"onnxcam: warning: no rectifier (Relu, Clip at 0) lies between the tensors, so "
                f"'{policy.value}' changes nothing.",
                err=True,
            )


def _described(info: object) -> str:
    """Return ``name float [T, 1, 3, 224, 224]``."""
    import onnx

    assert isinstance(info, onnx.ValueInfoProto)
    tensor = info.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    sizes = ", ".join(d.dim_param or (str(d.dim_value) or "?") for d in tensor.shape.dim)
    return f"{info.name}  {kind} [{sizes}]"
