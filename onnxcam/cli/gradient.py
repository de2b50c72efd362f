"""``onnxcam gradient``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxcam.cli.explain import EngineName

LARGE = 0.1  # relative error that is more than rounding and kinks


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
    check: Annotated[
        str | None,
        typer.Option(
            help="Run the gradient once, on a photograph, an array or random numbers, and compare "
            "it with central differences of the model.",
            metavar="IMAGE|FILE.npy|random",
        ),
    ] = None,
) -> None:
    """Write a model that gives the gradient of any tensor with respect to any others.

    Exit code 0: done; 1: --check found NaN or infinity; 2: a mistake in the call.
    """
    from onnxcam.gradient.differentiate import CHANGED, add_gradients
    from onnxcam.gradient.interface import GRADIENT, NEGATIVE
    from onnxcam.model.write import write_model

    if check is not None and policy is not Policy.standard:
        raise typer.BadParameter(
            f"policy '{policy.value}' is no derivative; 'standard' can be checked.",
            param_hint="--check",
        )
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
    if check is not None:
        _check(made, model, of, to, check)


def _check(made: Any, model: Path, of: str, to: list[str], given: str) -> None:
    """Print how the gradient compares; exit code 1 where it is not finite."""
    from onnxcam.gradient_check import DIRECTIONS, check_gradient

    found = check_gradient(made, model, of, list(dict.fromkeys(to)), given)
    for one in found:
        if one.problem:
            typer.echo(f"onnxcam: error: {one.problem}.", err=True)
            continue
        typer.echo(
            f"checked   {one.tensor}: relative error {one.error:.1e} along {DIRECTIONS} "
            f"directions, largest value {one.largest:.3g}"
        )
        if one.error > LARGE:
            typer.echo(
                f"onnxcam: warning: the gradient of '{one.tensor}' differs from central "
                "differences. Rounding, quantizers, many kinks or half precision do that; else "
                "it is wrong.",
                err=True,
            )
    if any(one.problem for one in found):
        raise typer.Exit(1)


def _described(info: object) -> str:
    """Return ``name float [T, 1, 3, 224, 224]``."""
    import onnx

    assert isinstance(info, onnx.ValueInfoProto)
    tensor = info.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    sizes = ", ".join(d.dim_param or (str(d.dim_value) or "?") for d in tensor.shape.dim)
    return f"{info.name}  {kind} [{sizes}]"
