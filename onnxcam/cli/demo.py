"""``onnxcam demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Directory to write to.")] = Path(
        "onnxcam-demo"
    ),
) -> None:
    """Explain the embedded photograph with the embedded model; needs no network."""
    from rich.console import Console
    from rich.table import Table

    from onnxcam import default_model, default_photograph
    from onnxcam.explainer import Explainer
    from onnxcam.image_files import describe
    from onnxcam.outputs import Outputs

    outputs = Outputs(out, "png", arrays=False)
    explainer = Explainer(default_model())
    photograph = default_photograph()
    model = describe(explainer)
    outputs.look(model)
    found = explainer.explain(photograph, "top:5")
    records = outputs.save(found, photograph.stem, photograph.name)
    images = [{"image": photograph.name, "explanations": records}]
    outputs.write_records({"model": model, "images": images, "failed": []})
    table = Table(title=f"{explainer.path.name} on {photograph.name}: what it saw, and where")
    for column in ("rank", "label", "score", "picture"):
        table.add_column(column, justify="right" if column in ("rank", "score") else "left")
    for record in records:
        picture = str(out / record["overlay"])
        table.add_row(str(record["rank"]), record["label"], f"{record['score']:.3f}", picture)
    Console(soft_wrap=True).print(table)
