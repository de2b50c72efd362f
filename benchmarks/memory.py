"""Resident memory of 1,000 explanations, photographs and pictures included."""

from __future__ import annotations

from pathlib import Path

from measure import table

import onnxcam


def resident() -> float:
    """Return this process's resident memory in MiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmRSS")


def run(count: int = 1000) -> str:
    """Return the table."""
    explainer = onnxcam.Explainer(onnxcam.default_model(), providers="cpu")
    photograph = onnxcam.default_photograph()
    marks = {}
    for done in range(1, count + 1):
        for explanation in explainer.explain(photograph, "top:2"):
            explanation.overlay()
            explanation.to_dict()
        if done in (10, 100, count):
            marks[done] = resident()
    rows = [[str(done), f"{mib:.1f}", f"{mib - marks[10]:+.1f}"] for done, mib in marks.items()]
    return table(["after", "resident, MiB", "since the 10th"], rows)


if __name__ == "__main__":
    print(run())
