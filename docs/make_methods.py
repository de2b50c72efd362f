"""Write docs/methods.md: every method, from the registry and docs/methods.toml.

python docs/make_methods.py
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnxcam.methods.base import Method  # noqa: E402
from onnxcam.methods.registry import WRAPPERS, methods  # noqa: E402

PAGE = Path(__file__).with_name("methods.md")
NOTES = Path(__file__).with_name("methods.toml")
COMMAND = "python docs/make_methods.py"
Notes = dict[str, Any]

INTRODUCTION = """\
# Methods

All {count}, written by `{command}` from the registry and `docs/methods.toml`; a test fails when this
page is stale. [choosing.md](choosing.md) leads from a question to one of them.

![A bulldog and a cat by the methods of one run](pictures/contact-sheet.jpg)

*EfficientNet-Lite0; of each pair the target is "bull mastiff" on the left, "tabby" on the right.
Photograph: pytorch-grad-cam, MIT ([note](pictures/LICENCES.md)). A method whose two pictures are the
same does not know of classes.*

* **Formula**: `A_k` is channel k of the layer, `G_k` the score's gradient there, `x` the image, `y`
  the score, `mean_S` and `sum_S` go over places. Maps of a layer are rectified when they are painted.
* **Passes**: what it costs, in forward passes of the whole network for one image and target, as
  the methods declare it. **Measured**: the same as a run showed, of ResNet-50 (of methods for
  transformers ViT-Ti) on a CPU; of methods of many runs the time of each of their images, where
  a gradient at the image takes that of several passes. All networks, batches and memory:
  [performance.md](performance.md).
* Whether a map changes when the network's weights are made random: [sanity.md](sanity.md).
* **Compared with**: what a test holds it against, and the largest difference that this test passes,
  in parts of the map's maximum: each on small or torchvision networks with seeded weights.
* **Own class**: the share of cases in which the map is larger, in the mean, on the boxes of its own
  class than on those of the other, of the two best-scored classes of a photograph: {cases} cases of
  the annotated photographs (for methods of many runs fewer: their number stands beside, and
  `grad-cam` wins {first:.2f} and {few:.2f} of those), the embedded EfficientNet-Lite0 at its last layer
  (`benchmarks/discrimination.py`). Of signed maps at the image only what speaks for the class
  counts. 0.5 is chance, and what a map gets that is the same for every class; the standard error
  is up to {error:.2f}, of fewer cases {more:.2f} and {most:.2f}. Low is right for `counterfactual`, and `occlusion`
  is here of `size=64,stride=32`.
  It asks whether a map tells classes apart, on this network, not whether it is right about the
  network: an object's surroundings may be what speaks for it. Behind averaging and one linear
  layer, as here, `cam`, `grad-cam`, `hires-cam` and `xgrad-cam` are one map.
"""

SUMS = "numbers and their sums and differences, no boxes, similarities or likelihoods"
KINDS = {
    ("layer", False): "any target; any layer of maps before it, several too",
    ("layer", True): f"{SUMS}; any layer of maps before it",
    ("input", False): "any target; always at the image, whatever the layer",
    ("input", True): f"{SUMS}; always at the image",
}


def cells(*texts: str) -> str:
    return f"| {' | '.join(t.replace('|', chr(92) + '|') for t in texts)} |"


def takes(method: Method, notes: Notes) -> str:
    """Return for which targets and layers a method works."""
    return str(notes.get("only") or KINDS[method.space, method.drive is not None])


def share(found: Notes, name: str) -> str:
    """Return the share of cases won; behind it their number where it is another."""
    for given in (found, found["some"], found["few"]):
        if name in given:
            more = "" if given is found else f" of {given['cases']}"
            return f"{given[name] / given['cases']:.2f}{more}"
    return ""


def measured(method: Method, cost: Notes) -> str:
    """Return the ratio to the forward pass, of one image or of each of many."""
    found = cost.get(method.name, {})
    ratio = found.get("resnet50", found.get("vit_tiny_patch16_224"))
    if ratio is None:
        return ""
    return f"{ratio:.2f}{'' if method.drive is None else ' each'}"


def overview(known: dict[str, Method], found: Notes, cost: Notes) -> Iterator[str]:
    yield cells("Method", "Map of", "Passes", "Measured", "Own class")
    yield "|---|---|---|---|---|"
    for name, method in known.items():
        place = "a layer" if method.space == "layer" else "the image"
        yield cells(f"`{name}`", place, method.cost, measured(method, cost), share(found, name))


def described(method: Method, notes: Notes) -> Iterator[str]:
    """Yield the lines of a method's section."""
    paper = f"[{method.citation}]({notes['paper']})" if "paper" in notes else method.citation
    yield from ("", f"## `{method.name}`", "", f"`{method.formula}`", "", f"* Paper: {paper}.")
    if method.parameters:
        options = ",".join(f"{name}={value:g}" for name, value in method.parameters.items())
        yield f"* Options, with their defaults: `{method.name}:{options}`."
    yield f"* Forward passes: {method.cost}. Needs {method.needs}."
    yield f"* Takes {takes(method, notes)}."
    if "peer" in notes:
        file, _, test = notes["test"].partition("::")
        within = f"<= {notes['within'].replace('; ', '; <= ')} of the maximum"
        yield f"* Compared with {notes['peer']}: {within} (`{test}` in `{file}`)."
    else:
        yield "* Compared with nothing: the draws are its own."
    yield f"* Good for: {notes['good']}"
    yield f"* Cannot tell: {notes['cannot']}"


def page() -> str:
    """Return the page.

    Raises:
        ValueError: a method has no notes, or notes have no method.
    """
    notes = tomllib.loads(NOTES.read_text("utf-8"))
    found, cost = notes.pop("discrimination"), notes.pop("cost", {})
    known = {n: m for n, m in methods().items() if m.builtin}
    if set(known) != set(notes):
        raise ValueError(
            f"docs/methods.toml: missing or without a method {set(known) ^ set(notes)}"
        )
    cases, some, few = found["cases"], found["some"], found["few"]
    head = INTRODUCTION.format(
        count=len(known),
        command=COMMAND,
        cases=cases,
        error=0.5 / cases**0.5,
        more=0.5 / some["cases"] ** 0.5,
        most=0.5 / few["cases"] ** 0.5,
        first=some["grad-cam"] / some["cases"],
        few=few["grad-cam"] / few["cases"],
    )
    around = ", ".join(f"`{name}`" for name in WRAPPERS)
    lines = [head.rstrip(), "", *overview(known, found, cost), ""]
    lines.append(f"{around} go around other methods of a layer and one run: `NAME@METHOD`.")
    for name, method in known.items():
        lines += described(method, notes[name])
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
