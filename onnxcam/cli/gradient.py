"""``onnxcam gradient``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxcam.cli import voice
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
    out: Annotated[Path, typer.Option("-o", "--out", help="The .onnx file to write.")],
    of: Annotated[
        str | None,
        typer.Option(
            help="The differentiated tensor. Default: the score that explain takes.",
            metavar="TENSOR",
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="Tensor to differentiate with respect to; repeatable. Default: the image input.",
            metavar="TENSOR",
        ),
    ] = None,
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
    picture: Annotated[
        str | None,
        typer.Option(
            help="Write a picture beside the model: the gradient of the largest element on a "
            "photograph or an array.",
            metavar="IMAGE|FILE.npy",
        ),
    ] = None,
    verbose: voice.Verbose = False,
    quiet: voice.Quiet = False,
) -> None:
    """Write a model that gives the gradient of any tensor with respect to any others.

    Exit code 0: done; 1: --check found NaN or infinity; 2: a mistake in the call.
    """
    from onnxcam.gradient.differentiate import CHANGED, add_gradients
    from onnxcam.gradient.interface import GRADIENT, NEGATIVE
    from onnxcam.model.write import write_model

    voice.tune(verbose=verbose, quiet=quiet)
    if check is not None and policy is not Policy.standard:
        raise typer.BadParameter(
            f"policy '{policy.value}' is no derivative; 'standard' can be checked.",
            param_hint="--check",
        )
    of, to = _chosen(model, of, to)
    made = add_gradients(
        model, of, to, policy=policy.value, engine=engine.value, T=cotangents, blocked=blocked
    )
    write_model(made, out, model)
    voice.say(f"wrote     {out}")
    voice.say(f"input     {_described(made.graph.input[-1])}")
    for output in made.graph.output:
        if output.name.startswith((GRADIENT, NEGATIVE)):
            voice.say(f"output    {_described(output)}")
    if policy not in (Policy.standard, Policy.excitation):
        changed = {p.key: p.value for p in made.metadata_props}[CHANGED].split("\n")
        count = len([name for name in changed if name])
        voice.say(f"{policy.value:<9} {count} rectifier(s)")
        if not count:
            voice.warn(
                f"no rectifier (Relu, Clip at 0) lies between the tensors, so '{policy.value}' "
                "changes nothing."
            )
    if picture is not None:
        _draw(made, model, of, to, picture, out, policy)
    if check is not None:
        _check(made, model, of, to, check)


def _chosen(model: Path, of: str | None, to: list[str] | None) -> tuple[str, list[str]]:
    """Return what was named, and for what was not what ``onnxcam explain`` takes."""
    if of is not None and to:
        return of, to
    from onnxcam.errors import TensorError
    from onnxcam.inputs.cards import given_cards
    from onnxcam.surgeon.inspect import usual_ends

    score = next((c.score for c in given_cards("auto", model, False) if c.score), "auto")
    usual_of, usual_to, why = usual_ends(model, score)
    of, to = of or usual_of, to or ([] if usual_to is None else [usual_to])
    if of is None or not to:
        missing = [*(["--of TENSOR"] if of is None else []), *([] if to else ["--to TENSOR"])]
        raise TensorError(
            f"{model}: name what is not found by itself: {' '.join(missing)}; 'onnxcam inspect "
            f"{model} --tensors' lists every tensor. ({why})"
        )
    return of, to


def _draw(
    made: Any, model: Path, of: str, to: list[str], given: str, out: Path, policy: Policy
) -> None:
    """Write a picture of the gradient beside the model."""
    from onnxcam.gradient_picture import gradient_picture

    method = "saliency" if policy is Policy.standard else policy.value
    found = gradient_picture(made, model, of, list(dict.fromkeys(to)), given, method)
    path = found.save(out.with_suffix(".png"))
    voice.say(f"picture   {path}  ({found.element} = {found.score:.4g} on {given})")
    if found.note:
        from onnxcam.notes import TEXTS  # needs NumPy, which --help does not

        said = TEXTS[found.note].replace("--score", "--of")
        voice.say(f"          note: {said}")


def _check(made: Any, model: Path, of: str, to: list[str], given: str) -> None:
    """Print how the gradient compares; exit code 1 where it is not finite."""
    from onnxcam.gradient_check import DIRECTIONS, check_gradient

    found = check_gradient(made, model, of, list(dict.fromkeys(to)), given)
    for one in found:
        if one.problem:
            voice.complain(f"onnxcam: error: {one.problem}.")
            continue
        voice.say(
            f"checked   {one.tensor}: relative error {one.error:.1e} along {DIRECTIONS} "
            f"directions, largest value {one.largest:.3g}"
        )
        if one.error > LARGE:
            voice.warn(
                f"the gradient of '{one.tensor}' differs from central differences.\n"
                "Rounding, quantizers, many kinks or half precision do that; else it is wrong."
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
