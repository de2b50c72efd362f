"""Make the README's pictures: real output.

python docs/make_pictures.py [FOLDER OF TEST DATA]

The first is made of what onnxcam brings along, the others of a photograph and a model of the test data.
"""

import sys
from pathlib import Path

from PIL import Image

import onnxcam
from onnxcam.imaging.sheets import sheet
from onnxcam.methods.registry import methods as known

PICTURES = Path(__file__).with_name("pictures")
METHODS = ["grad-cam", "counterfactual", "layer-cam", "excitation-bp", "guided-backprop"]
METHODS += ["guided-grad-cam"]
SIDE = 120  # of a panel of the contact sheet
FAST = [name for name, m in known().items() if m.drive is None and "transformer" not in m.needs]


def chelsea() -> None:
    explainer = onnxcam.Explainer(onnxcam.default_model())
    found = explainer.explain(onnxcam.default_photograph(), ["tiger cat", "lynx"])
    panels = [("the photograph", Image.open(onnxcam.default_photograph()).convert("RGB"))]
    panels += [(f"{e.label}: rank {e.rank}, score {e.score:.2f}", e.overlay()) for e in found]
    whole = sheet([panels])
    small = whole.resize((whole.width * 2 // 3, whole.height * 2 // 3), Image.Resampling.LANCZOS)
    small.save(PICTURES / "chelsea.png", optimize=True)


def methods(data: Path) -> None:
    explainer = onnxcam.Explainer(data / "models" / "resnet50-keras-w8.onnx", method=METHODS)
    found = explainer.explain(
        data / "images" / "two_objects" / "both.png", ["bull mastiff", "tabby"]
    )
    rows = [[(f"{e.method}", e.overlay()) for e in found[i::2]] for i in range(2)]
    whole = sheet(rows)
    whole.save(PICTURES / "methods.jpg", quality=88, optimize=True)


def contact_sheet(data: Path) -> None:
    """Every method of one run that takes the model: the dog beside the cat."""
    explainer = onnxcam.Explainer(onnxcam.default_model(), method=FAST)
    found = explainer.explain(
        data / "images" / "two_objects" / "both.png", ["bull mastiff", "tabby"]
    )
    panels = []
    for dog, cat in zip(found[::2], found[1::2], strict=True):
        pair = Image.new("RGB", (2 * SIDE + 2, SIDE), "white")
        for n, one in enumerate((dog, cat)):
            pair.paste(one.overlay().resize((SIDE, SIDE)), (n * (SIDE + 2), 0))
        panels.append((dog.method, pair))
    whole = sheet([panels[i : i + 3] for i in range(0, len(panels), 3)])
    whole.save(PICTURES / "contact-sheet.jpg", quality=68, optimize=True)


if __name__ == "__main__":
    chelsea()
    if len(sys.argv) > 1:
        methods(Path(sys.argv[1]))
        contact_sheet(Path(sys.argv[1]))
