"""Write ``docs/networks.md`` from what the sweep over whole networks printed.

python -m tests.parity.to_input | tee sweep.txt
python docs/make_networks.py sweep.txt
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

EXPORTS = ["torchscript fixed", "torchscript dynamic", "dynamo fixed", "dynamo dynamic"]
PACKAGES = ["onnxcam", "onnxruntime", "onnx", "torch", "torchvision", "timm"]
TEXT = """# Whole networks against PyTorch

The gradient of random cotangents with respect to the input image, two cotangents and two images in one run, in ONNX Runtime in float32 against PyTorch autograd in
float64: relative L2 error, at most 1e-3 to be right. Each export is differentiated twice, in the general form and for blocks (`--blocked`, one cotangent a run), and the worse counts. Both exporters of PyTorch, batch size fixed and dynamic. Weights are seeded (`tests/parity/architectures.py`);
`python -m tests.parity.to_input` makes the figures again, `docs/make_networks.py` this page.

One rectifier or maximum that decides otherwise in float32 than in float64 changes the gradient by 1e-3 to 1e-2; PyTorch's own float32 gradient does the same as often.
So up to six pairs of images are tried, and the first that is right counts: a wrong rule is wrong on every image. Above 1e-3, an export is also right where PyTorch in
float32, on the same images, is further off than ONNX Runtime; both figures are given.

{summary}

{table}

*not exported*: PyTorch's exporter fails, or the file's own scores are not those of the network.

Versions: {versions}.
"""


def main() -> None:
    found: dict[str, dict[str, str]] = {}
    for line in Path(sys.argv[1]).read_text("utf-8").splitlines():
        head, _, outcome = line.partition(": ")
        name, *how = head.split(" ")
        if " ".join(how) not in EXPORTS:  # PyTorch prints graphs that it cannot export
            continue
        found.setdefault(name, {})[" ".join(how)] = outcome.rpartition(" ")[0]
    rows = [f"| network | {' | '.join(EXPORTS)} |", "|---|---|---|---|---|"]
    for name, outcomes in sorted(found.items()):
        cells = [outcomes.get(e, "").removeprefix("right ") for e in EXPORTS]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    verdicts = [o.split(" ")[0] for outcomes in found.values() for o in outcomes.values()]
    kinds = {"right": "right", "wrong": "wrong", "refused": "refused", "not": "not exported"}
    counts = [f"{verdicts.count(word)} {text}" for word, text in kinds.items()]
    right = sum(
        any(o.startswith("right") for o in outcomes.values()) for outcomes in found.values()
    )
    summary = (
        f"**{len(found)} networks, {len(verdicts)} exports: {', '.join(counts)}**; {right} networks "
        "are right in at least one export."
    )
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    page = TEXT.format(summary=summary, table="\n".join(rows), versions=versions)
    Path(__file__).with_name("networks.md").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
