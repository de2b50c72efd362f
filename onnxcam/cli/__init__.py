"""The command line: one file for each command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from onnxcam._version import __version__
from onnxcam.cli import voice
from onnxcam.cli.compare import compare
from onnxcam.cli.demo import demo
from onnxcam.cli.doctor import doctor
from onnxcam.cli.explain import explain
from onnxcam.cli.export import export
from onnxcam.cli.gradient import gradient
from onnxcam.cli.inspect import inspect
from onnxcam.cli.methods import methods
from onnxcam.cli.targets import targets
from onnxcam.errors import (
    PAGE,
    LayerError,
    NoImageInputError,
    OnnxcamError,
    ScoreError,
    TargetError,
)

app = typer.Typer(
    name="onnxcam",
    help="Explain exported vision models: Grad-CAM from an ONNX file and an image.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(explain)
app.command()(inspect)
app.command()(compare)
app.command()(gradient)
app.command()(export)
app.command()(demo)
app.command()(methods)
app.command()(targets)
app.command()(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onnxcam {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Explain exported vision models: Grad-CAM from an ONNX file and an image."""


def _with_page(error: OnnxcamError) -> str:
    """Return an error's text; where a model or target is refused, with the page of all targets."""
    text = str(error)
    refused = isinstance(error, (NoImageInputError, ScoreError, LayerError, TargetError))
    return f"{text} {PAGE}" if refused and "'onnxcam targets'" not in text else text


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    voice.begin()
    try:
        app()
    except OnnxcamError as error:
        voice.complain(f"onnxcam: error: {_with_page(error)}")
        sys.exit(2)
    except MemoryError:
        voice.complain("onnxcam: error: the memory does not suffice for this model.")
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(1)
