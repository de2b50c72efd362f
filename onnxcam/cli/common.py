"""Options that several commands take, with the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Score = Annotated[str, typer.Option(help="Tensor of the class scores.")]
Grid = Annotated[
    str | None,
    typer.Option(
        help="Rows and columns of patches among a transformer's tokens, where the model does not "
        "tell.",
        metavar="HxW",
    ),
]
Preprocess = Annotated[
    str, typer.Option(help="Name or file of a card that says how images are prepared.")
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="File of class names, one a line or JSON; or imagenet-1k, imagenet-1001.",
        metavar="FILE|NAME",
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="Another input of the model; a text where a card tells its vocabulary.",
        metavar="NAME=FILE.npy|zeros|NUMBER|TEXT",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        help="An image: explain how similar the model's embedding is to this one's.",
        metavar="IMAGE",
    ),
]
