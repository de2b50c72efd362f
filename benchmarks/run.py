"""Make ``docs/performance.md`` again: every table, the machine and the versions.

pip install -e '.[cpu,test]' torch==2.13.0 onnxscript opencv-python-headless
pip install --no-deps torchvision==0.28.0 grad-cam==1.5.7 ttach==0.0.3 captum==0.9.0 torchcam==0.5.0
pip install --no-deps onnx-ad==0.3.0 timm==1.0.31 zennit==0.5.1
pip install --no-deps dianna==1.8.1 scikit-image xarray pandas lazy_loader
pip install tqdm scikit-learn matplotlib
python benchmarks/run.py
"""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

import backward
import command
import elements
import gradcam
import memory
import methods
import surgery

import kernels

NOTES = Path(__file__).with_name("notes.md")
PACKAGES = (
    "onnxcam", "onnxruntime", "onnx", "onnx-ir", "numpy", "pillow", "typer", "torch",
    "torchvision", "grad-cam", "captum", "torchcam", "timm", "zennit", "opencv-python-headless",
)  # fmt: skip


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def main() -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    tables = {
        "gradcam": gradcam.run(),
        "methods": methods.run(),
        "elements": elements.run(),
        "backward": backward.run(),
        "surgery": surgery.run(),
        "command": command.run(),
        "painting": kernels.painting(),
        "combining": kernels.combining(),
        "halves": kernels.combining(dtype="float16", batches=(1, 8), counts=(1,)),
        "resizing": kernels.resizing(),
        "memory": memory.run(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}; {datetime.date.today()}.",
        "versions": versions,
    }
    text = NOTES.read_text("utf-8")
    for name, content in tables.items():
        text = text.replace("{{" + name + "}}", content)
    Path(__file__).parents[1].joinpath("docs", "performance.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
