"""``onnxcam gradient``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from onnxcam.cli.explain import EngineName


class Policy(StrEnum):
    """The derivative, or a rule that replaces it."""

    standard = "standard"
    guided = "guided"
    guided_wide = "guided-wide"
    deconvnet = "deconvnet"
    excitation = "excitation"


def gradient(
    model: Annotated[Path, typer.Argument(help="The .onnx file.", metavar="MODEL")],
    of: Annotated[str, typer.Option(help="The differentiated tensor.", metavar="TENSOR")],
    to: Annotated[
        list[str],
        typer.Option(help="Tensor to differentiate with respect to; repeatable.", metavar="TENSOR"),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .onnx file to write.")],
    policy: Annotated[
        Policy, typer.Option(help="The derivative, or a rule that replaces it.")
    ] = Policy.standard,
    engine: Annotated[
        EngineName,
        typer.Option(help="Gradient engine: onnxcam's rules or ONNX Runtime's builder."),
    ] = EngineName.rules,
    cotangents: Annotated[
        int | None,
        typer.Option(
            help="Fix the number of cotangents; by default each run chooses.", metavar="T"
        ),
    ] = None,
    blocked: Annotated[
        bool,
        typer.Option("--blocked", help="One cotangent, optimized for ONNX Runtime on CPU."),
    ] = False,
) -> None:
    """Write a model that gives the gradient of any tensor with respect to any others."""
    from onnxcam.gradient.differentiate import CHANGED, add_gradients
    from onnxcam.gradient.interface import GRADIENT, NEGATIVE
    from onnxcam.model.write import write_model

    made = add_gradients(
        model, of, to, policy=policy.value, engine=engine.value, T=cotangents, blocked=blocked
    )
    write_model(made, out, model)
    typer.echo(f"wrote     {out}")
    typer.echo(f"input     {_described(made.graph.input[-1])}")
    for output in made.graph.output:
        if output.name.startswith((GRADIENT, NEGATIVE)):
            typer.echo(f"output    {_described(output)}")
    if policy not in (Policy.standard, Policy.excitation):
        changed = {p.key: p.value for p in made.metadata_props}[CHANGED].split("\n")
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
