"""``onnxcam methods``."""

from __future__ import annotations

import typer


def methods() -> None:
    """List how a model can be explained: formula, paper, needs, cost in forward passes."""
    from onnxcam.methods.registry import methods as known

    width = max(map(len, known())) + 2
    for method in known().values():
        lines = [f"{method.citation}; needs {method.needs}; in forward passes: {method.cost}"]
        if method.parameters:
            settings = ",".join(f"{name}={value:g}" for name, value in method.parameters.items())
            lines.append(f"parameters, as {method.name}:{settings}")
        typer.echo(f"{method.name:<{width}}{method.formula}")
        for line in lines:
            typer.echo(" " * width + line)
