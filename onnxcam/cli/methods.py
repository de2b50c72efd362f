"""``onnxcam methods``."""

from __future__ import annotations


def methods() -> None:
    """List how a model can be explained: name, formula, paper, needs, cost in forward passes."""
    from rich.console import Console
    from rich.table import Table

    from onnxcam.methods.registry import methods as known

    table = Table(show_lines=False)
    for column in ("method", "what it shows", "paper", "needs", "cost"):
        table.add_column(column, no_wrap=column in ("method", "cost"))
    for method in known().values():
        settings = ", ".join(f"{name}={value}" for name, value in method.parameters.items())
        name = f"{method.name}:{settings}" if settings else method.name
        table.add_row(name, method.formula, method.citation, method.needs, method.cost)
    Console(soft_wrap=False).print(table)
