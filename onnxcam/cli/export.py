"""``onnxcam export``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from onnxcam.cli import common, voice
from onnxcam.cli.explain import read_grid
from onnxcam.errors import PageError


def export(
    model: Annotated[Path, typer.Argument(help="The .onnx file.", metavar="MODEL")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="The file to write. Default: NAME.cam.onnx beside the model."
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "-t",
            "--target",
            help="Fix what is explained: class index, label, top:K, ...; repeatable. Default: an "
            "input 'target', -1 for the predicted class, which it is where nothing is fed.",
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(help="Explain the K best classes: -t top:K.", metavar="K")
    ] = None,
    target_required: Annotated[
        bool,
        typer.Option(
            "--target-required",
            help="The input 'target' must be fed: for runtimes that take inputs with a default for "
            "constants, OpenVINO for one.",
        ),
    ] = False,
    reference: common.Reference = None,
    input_: common.Input = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="How to explain; repeatable. The first is the output 'heatmap', others are "
            "'heatmap:METHOD'.",
            metavar="NAME",
        ),
    ] = None,
    layer: Annotated[
        str, typer.Option(help="Tensor or node to explain, or -1, -2... back from the default.")
    ] = "auto",
    score: common.Score = "auto",
    grid: common.Grid = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Maps at the layer's size, rectified, not scaled.")
    ] = False,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Take a photograph of any size, uint8 [H, W, 3], and prepare it in the graph.",
        ),
    ] = False,
    overlay: Annotated[
        bool,
        typer.Option("--overlay", help="Give the painted photograph too; --with-preprocessing."),
    ] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Store weights and compute in float16.")
    ] = False,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Fix how many images a run takes, for compilers that ask for fixed shapes.",
            metavar="N",
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            help="The highest opset that the runtime loads. The file has the lowest that says the "
            "same; a higher one is refused.",
            metavar="N",
        ),
    ] = None,
    preprocess: common.Preprocess = "auto",
    labels: common.Labels = None,
    web: Annotated[
        Path | None,
        typer.Option(
            help="Write a page that explains photographs in the browser into this folder, and the "
            "model too where -o does not say another place.",
            metavar="DIR",
        ),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(
            help="With --web: the folder of onnxruntime-web's files or of its npm package. "
            "Default: node_modules here or above.",
            metavar="DIR",
        ),
    ] = None,
    example: Annotated[
        Path | None,
        typer.Option(help="With --web: a photograph that the page offers.", metavar="IMAGE"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
    verbose: voice.Verbose = False,
    quiet: voice.Quiet = False,
) -> None:
    """Write a portable model: prediction and heatmap from one run, on any runtime."""
    from onnxcam.inputs.others import read_others
    from onnxcam.portable import Exported
    from onnxcam.portable import export as write_model

    voice.tune(verbose=verbose, quiet=quiet)
    listed = [*(target or []), *([f"top:{top}"] if top is not None else [])]
    write: Callable[..., Exported] = write_model
    if web is not None:
        from onnxcam.web_page import export_page

        write = partial(export_page, folder=web, runtime=runtime, example=example)
    elif runtime is not None or example is not None:
        raise PageError("--runtime and --example go with a page: --web DIR.")
    made = write(
        model,
        out or (model.with_suffix(".cam.onnx") if web is None else web / f"{model.stem}.cam.onnx"),
        targets=listed or None,
        target_required=target_required,
        inputs=read_others(input_ or [], {i.partition("=")[0] for i in input_ or []}),
        reference=reference,
        method=method or "auto",
        raw=raw,
        with_preprocessing=with_preprocessing,
        overlay=overlay,
        fp16=fp16,
        batch=batch,
        opset=opset,
        overwrite=overwrite,
        layer=layer,
        score=score,
        grid=read_grid(grid),
        preprocess=preprocess,
        labels=labels,
    )
    layer_, plan = made.plan.layer, made.plan
    voice.say(f"wrote     {made.path}")
    if web is not None:
        voice.say(f"page      {web}: for a web server, python3 -m http.server -d {web} for one")
    voice.say(f"score     {plan.score} ({plan.score_note})")
    voice.say(f"layer     {'none' if layer_ is None else layer_}")
    for method_, output in made.heatmaps.items():
        voice.say(f"method    {method_}: output '{output}'")
    for output in made.overlays.values():
        voice.say(f"output    {output}")
    for what, name in made.names.items():
        voice.say(f"{'input' if what in ('target', 'photo') else 'output':<9} {name}")
    for others in plan.others.values():
        voice.say(f"input     {others}, as it was: --input {others.name}=... makes it a constant")
    (before, after), (nodes, added) = made.size, made.operators
    voice.say(f"added     {after - before:+,} bytes to {before:,}, {added} operators to {nodes}")
    voice.say(f"format    opset {made.opset}, IR {made.ir_version}")
