"""``onnxcam explain`` as a whole process, the second time on a model, against a bare script."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import side_by_side, table
from PIL import Image

import onnxcam

SCRIPT = """
import sys, numpy, onnxruntime
from PIL import Image
image = Image.open(sys.argv[2]).convert("RGB").resize((224, 224))
array = (numpy.asarray(image, numpy.float32) - 127) / 128
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {"input": array.transpose(2, 0, 1)[None]})
"""


def run(rounds: int = 11) -> str:
    """Return the table."""
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        Image.open(onnxcam.default_photograph()).resize((640, 480)).save(photo, quality=92)
        model = str(onnxcam.default_model())
        bare = [sys.executable, "-c", SCRIPT, model, str(photo)]
        ours = [sys.executable, "-m", "onnxcam", "explain", str(photo), "-m", model]
        environment = {**os.environ, "ONNXCAM_CACHE": str(Path(folder) / "cache")}

        def call(command: list[str]) -> None:
            subprocess.run(
                command, check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment
            )

        call(ours)
        seconds, ratios = side_by_side(
            {
                "bare": lambda: call(bare),
                "ours": lambda: call(ours),
                "first": lambda: call([*ours, "--no-cache"]),
            },
            rounds,
            0.3,
        )
    rows = [
        ["import onnxruntime, decode, run once", f"{seconds['bare']:.3f}", "1", ""],
        ["onnxcam explain, second time", f"{seconds['ours']:.3f}", f"{ratios['ours']:.2f}", "1.5"],
        ["onnxcam explain --no-cache", f"{seconds['first']:.3f}", f"{ratios['first']:.2f}", ""],
    ]
    return table(["process", "seconds", "times", "aim"], rows)


if __name__ == "__main__":
    print(run())
