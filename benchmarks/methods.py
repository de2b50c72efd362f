"""Every method over the plain forward pass of the same model in ONNX Runtime, peers beside them.

    python benchmarks/methods.py [--models resnet50,vit_tiny_patch16_224] [--methods grad-cam,rise]
        [--batch 1,8] [--repeats 5] [--seconds 1] [--processor] [--no-memory]
        [--no-peers] [--brief] [--write]  # with --processor OPENBLAS_NUM_THREADS=1 before it

A method of one run is timed by turns with the forward pass of as many images. One of many runs is
timed on one image, over the images that it puts through the network, or through what lies behind
the layer, times what one takes at the best batch size; options such as ``rise:masks`` are lowered,
which changes the number of runs, not what one costs. ``--write`` puts the tables into
docs/performance.md and ratios into docs/methods.toml.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, wraps
from pathlib import Path
from typing import Any

import exports
import method_aims
import method_peers
import numpy as np
import onnxruntime
from measure import paired, table
from method_memory import measured

import onnxcam
from onnxcam.methods.base import Method
from onnxcam.methods.registry import find_method, methods

MODELS = {
    "resnet50": "ResNet-50",
    "mobilenet_v2": "MobileNetV2",
    "vgg16": "VGG-16",
    "vit_tiny_patch16_224": "ViT-Ti",
}
FEWER = {"masks": 128, "samples": 16, "steps": 16, "iterations": 16, "permutations": 2}
DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- cost of the methods -->", "<!-- end of cost -->"
BRIEF = "mobilenet_v2"
SIZES = (1, 2, 4, 8, 16)  # of batches, of which the best is taken
Plain = Callable[[np.ndarray], object]


@dataclass
class Found:
    """What one method costs on one network.

    Attributes:
        ratios: over the forward pass, by batch size; of many runs under 1 alone.
        passes: images put through the network in many runs, by the kind of run.
        memory: the peak over the forward pass's, in MiB.
        refusal: why the network is not for it.
    """

    ratios: dict[int, float] = field(default_factory=dict)
    passes: Counter[str] = field(default_factory=Counter)
    memory: float | None = None
    refusal: str = ""


@dataclass
class Network:
    """A network, its forward pass, and what was found of methods and of peers."""

    name: str
    path: Path
    plain: Plain
    seconds: float  # of one image
    best: float  # the least share of that which an image takes, of any batch size
    size: int  # which size that is
    methods: dict[str, Found] = field(default_factory=dict)
    peers: dict[tuple[str, str], float] = field(default_factory=dict)

    def __str__(self) -> str:
        return MODELS.get(self.name, self.name)


class Counted:
    """Runs that count their images by kind."""

    def __init__(self, runs: Any, count: Counter[str]) -> None:
        self._runs, self._count = runs, count

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._runs, name)
        if not callable(found):
            return found

        def counted(*arguments: Any) -> Any:
            if arguments and np.ndim(arguments[-1]):
                self._count[name] += len(arguments[-1])
            return found(*arguments)

        return counted


def counting(method: Method, count: Counter[str]) -> Method:
    """Return a method of many runs that counts its images, and takes fewer than usual."""
    less = {k: min(v, FEWER[k]) for k, v in method.parameters.items() if k in FEWER}
    method = find_method(method, **less)
    drive = method.drive
    assert drive is not None

    @wraps(drive)
    def counted(runs: Any, **parameters: Any) -> Any:
        count.clear()
        return drive(Counted(runs, count), **parameters)

    return replace(method, drive=counted)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 224, 224)).astype(np.float32)


def network(name: str, given: argparse.Namespace) -> Network:
    """Export a network and time its forward pass by batch size."""
    path = exports.export(name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    fed = session.get_inputs()[0].name

    def plain(some: np.ndarray) -> object:
        return session.run(None, {fed: some})

    one, found = images(1), []
    for size in SIZES:
        some = images(size)
        taken, ratio = paired(
            lambda: plain(one), lambda s=some: plain(s), given.repeats, given.seconds, given.clock
        )
        found.append((ratio / size, size, taken / ratio))
    best, size, single = min(found)
    return Network(name, path, plain, single, best, size)


def _set_threads(single: bool) -> None:
    """Have threads of every session rest between runs, or take one: those that spin cost others."""
    options = onnxruntime.SessionOptions

    def made() -> onnxruntime.SessionOptions:
        found = options()
        found.add_session_config_entry("session.force_spinning_stop", "1")
        if single:
            found.intra_op_num_threads = 1
        return found

    onnxruntime.SessionOptions = made


@cache
def plain_memory(path: Path, batch: int) -> float | None:
    return measured(path, batch)


def cost(on: Network, method: Method, given: argparse.Namespace) -> Found:
    """Return what a method costs on a network."""
    found = Found()
    many = method.drive is not None
    wanted = counting(method, found.passes) if many else method
    try:
        for batch, ratio in _timed(on, wanted, [1] if many else given.batch, given):
            found.ratios[batch] = ratio / (found.passes.total() * on.best) if many else ratio
        if given.memory:
            batch = 1 if many else max(given.batch)
            peaks = measured(on.path, batch, wanted.label), plain_memory(on.path, batch)
            found.memory = None if None in peaks else peaks[0] - peaks[1]
    except onnxcam.OnnxcamError as error:
        found.refusal = str(error)
    gc.collect()
    shutil.rmtree(os.environ["ONNXCAM_CACHE"], ignore_errors=True)  # hundreds of MB each
    return found


def _timed(
    on: Network, method: Method, batches: list[int], given: argparse.Namespace
) -> Iterator[tuple[int, float]]:
    """Yield the ratio over the forward pass, of each batch size."""
    explainer = onnxcam.Explainer(
        on.path, method=method, preprocess="unit", providers="cpu", cache=True
    )
    for batch in batches:
        some = images(batch)
        _, ratio = paired(
            lambda s=some: on.plain(s),
            lambda s=some: explainer.explain_batch(s),
            given.repeats,
            given.seconds,
            given.clock,
        )
        yield batch, ratio


def one_run(networks: list[Network], batches: list[int]) -> Iterator[list[str]]:
    """Yield rows of methods of one run, families and their aims before them."""
    for family, names in method_aims.families(methods()).items():
        rows = [row for name in names if (row := _ratios(name, networks, batches))]
        if rows:
            aims = [method_aims.aim(family, n.name, b) for n in networks for b in batches]
            yield [f"*{family}: aim*", *(f"*{a:.2f}*" if a else "" for a in aims)]
            yield from rows


def _ratios(name: str, networks: list[Network], batches: list[int]) -> list[str]:
    family = method_aims.family(methods()[name])
    cells = []
    for n in networks:
        found = n.methods.get(name, Found())
        for b in batches:
            ratio, aim = found.ratios.get(b), method_aims.aim(family, n.name, b)
            cells.append("-" if ratio is None else _marked(ratio, aim))
    return [f"`{name}`", *cells] if set(cells) != {"-"} else []


def _marked(ratio: float, aim: float | None) -> str:
    """Return a figure, bold where its aim is not reached."""
    return f"**{ratio:.2f}**" if aim and round(ratio, 2) > aim else f"{ratio:.2f}"


def many_runs(networks: list[Network]) -> Iterator[list[str]]:
    for name, method in methods().items():
        if method.drive is None:
            continue
        cells = []
        for n in networks:
            found = n.methods.get(name, Found())
            if 1 not in found.ratios:
                cells += ["-", "", ""]
                continue
            aim = method_aims.many(method, found.passes, n.name, n.seconds * n.best)
            cells += [str(found.passes.total()), _marked(found.ratios[1], aim), f"*{aim:.2f}*"]
        if set(cells) - {"-", ""}:
            yield [f"`{name}`", *cells]


def memories(networks: list[Network]) -> Iterator[list[str]]:
    for name in methods():
        found = [n.methods.get(name, Found()).memory for n in networks]
        if any(m is not None for m in found):
            yield [f"`{name}`", *("-" if m is None else f"{m:.0f}" for m in found)]


def peers(networks: list[Network]) -> Iterator[list[str]]:
    found = dict.fromkeys(key for n in networks for key in n.peers)
    for method, tool in found:
        cells = [n.peers.get((method, tool)) for n in networks]
        yield [f"`{method}`", tool, *("-" if c is None else f"{c:.2f}" for c in cells)]


def report(networks: list[Network], given: argparse.Namespace) -> str:
    """Return the tables as Markdown."""
    names = [str(n) for n in networks]
    passes = ", ".join(
        f"{n} {n.seconds * 1e3:.1f} ms (an image of a batch of {n.size}: {n.best * n.seconds * 1e3:.1f})"
        for n in networks
    )
    text = [f"The forward pass of one image: {passes}; {os.cpu_count()} cores.", ""]
    if given.clock is time.process_time:
        text[0] += " Measured while others used the machine, in the processor time of one thread."
    header = ["of one run", *(f"{n}, {b}" for n in names for b in given.batch)]
    text += [table(header, list(one_run(networks, given.batch))), ""]
    whole = [n for n in networks if not given.brief or n.name == BRIEF]
    names = [str(n) for n in whole]
    columns = [c for n in names for c in (f"{n}, images", "times", "aim")]
    text += [table(["of many runs", *columns], list(many_runs(whole))), ""]
    if given.memory:
        text += [table(["peak memory, MiB", *names], list(memories(whole))), ""]
    if given.peers:
        text += [table(["peers", "tool", *names], list(peers(whole))), ""]
    return "\n".join(text)


def write(text: str, networks: list[Network]) -> None:
    """Put tables into docs/performance.md, and the ratios of one image into docs/methods.toml."""
    page = DOCS / "performance.md"
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}", "utf-8")
    notes = DOCS / "methods.toml"
    others = notes.read_text("utf-8").partition("\n# Measured by 'python benchmarks/methods.py")[0]
    lines = [
        "",
        "# Measured by 'python benchmarks/methods.py --write': one image, over a forward pass;",
    ]
    lines += ["# of many runs over all of theirs.", "[cost]"]
    for name in methods():
        ratios = {n.name: n.methods[name].ratios[1] for n in networks
                  if name in n.methods and 1 in n.methods[name].ratios}  # fmt: skip
        if ratios:
            pairs = ", ".join(f"{n} = {r:.2f}" for n, r in ratios.items())
            lines.append(f'"{name}" = {{ {pairs} }}')
    notes.write_text("\n".join([others.rstrip("\n"), *lines, ""]), "utf-8")


def run(arguments: list[str] | None = None) -> str:
    """Return the tables; ``arguments`` as on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=lambda t: t.split(","), default=list(MODELS))
    parser.add_argument("--methods", type=lambda t: t.split(","))
    parser.add_argument("--batch", type=lambda t: [int(b) for b in t.split(",")], default=[1, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for one method and batch")
    parser.add_argument(
        "--processor", dest="clock", action="store_const", default=time.perf_counter,
        const=time.process_time, help="processor time of one thread: for a machine that others use",
    )  # fmt: skip
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument(
        "--brief", action="store_true", help=f"many runs, memory and peers on {BRIEF} alone"
    )
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(arguments or [])
    warnings.simplefilter("ignore")
    _set_threads(single=given.clock is time.process_time)
    start, networks = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ONNXCAM_CACHE"] = str(Path(folder) / "cache")
        for name in given.models:
            on = network(name, given)
            networks.append(on)
            less = argparse.Namespace(**vars(given))
            whole = not given.brief or name == BRIEF
            less.memory, less.peers = given.memory and whole, given.peers and whole
            for method in methods().values():
                wanted = given.methods is None or method.name in given.methods
                if wanted and (whole or method.drive is None):
                    found = on.methods[method.name] = cost(on, method, less)
                    said = (
                        found.refusal or f"{found.ratios} {dict(found.passes) or ''} {found.memory}"
                    )
                    print(
                        f"{time.perf_counter() - start:.0f} s {on}: {method.name} {said}"[:180],
                        flush=True,
                    )
            if less.peers:
                on.peers = method_peers.measured(on, given)
    text = report(networks, given)
    if given.write:
        write(text, networks)
    return text


if __name__ == "__main__":
    import sys

    print(run(sys.argv[1:]))
