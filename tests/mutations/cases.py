"""What is changed: small models of several kinds, and the photograph they are given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..conftest import DATA, parse, small_cnn
from . import images, models

CASES = DATA.parent / "cases"
SMALL = 60_000  # bytes


def originals() -> dict[str, bytes]:
    """Return models by name: one of the tests' own, and the cases where they are at hand."""
    found = {"small": small_cnn().SerializeToString(), "branches": _branches()}
    for file in sorted(CASES.glob("*.onnx")):
        if file.stat().st_size <= SMALL and not file.stem.startswith(("stft", "signal", "volume")):
            found[file.stem] = file.read_bytes()
    return found


def model_jobs(folder: Path, count: int, seed: int) -> Iterator[tuple[str, list[str], str]]:
    """Write changed models to a folder; yield what :func:`tests.mutations.runs.run` takes."""
    photo = folder / "photo.png"
    photo.write_bytes(images.originals()["photo.png"])
    for number, (what, _, data) in enumerate(models.mutations(originals(), count, seed)):
        file = folder / f"{number}.onnx"
        file.write_bytes(data)
        arguments = ["explain", photo.name, "-m", file.name, "--no-cache", "--provider", "cpu"]
        yield what, arguments, file.name


def image_jobs(folder: Path, count: int, seed: int) -> Iterator[tuple[str, list[str], str]]:
    """Likewise with images, which an unchanged model is given."""
    (folder / "model.onnx").write_bytes(small_cnn().SerializeToString())
    for number, (what, name, data) in enumerate(images.mutations(count, seed)):
        file = folder / f"{number}-{name}"
        file.write_bytes(data)
        yield what, ["explain", file.name, "-m", "model.onnx", "--provider", "cpu"], file.name


def _branches() -> bytes:
    """A model whose branch the run chooses, with constants and lengths that are computed."""
    import numpy as np

    rng = np.random.default_rng(3)
    return parse(
        """
        <ir_version: 8, opset_import: ["" : 16]>
        net (float[N,3,H,W] image) => (float[N,4] scores) {
            maps = Conv <pads=[1,1,1,1]> (image, w)
            high = Relu (maps)
            size = Shape (high)
            batch = Gather <axis=0> (size, zero)
            top = ReduceMax <keepdims=0> (high)
            large = Greater (top, one)
            chosen = If (large) <
                then_branch = yes () => (float[N,4,H,W] a) { a = Mul (high, half) },
                else_branch = no () => (float[N,4,H,W] b) { b = Identity (high) }
            >
            pooled = ReduceMean <axes=[2,3], keepdims=0> (chosen)
            shape = Concat <axis=0> (batch, rest)
            flat = Reshape (pooled, shape)
            scores = MatMul (flat, head)
        }
        """,
        {
            "w": rng.normal(size=(4, 3, 3, 3)).astype("f"),
            "head": rng.normal(size=(4, 4)).astype("f"),
            "zero": np.array([0]),
            "rest": np.array([4]),
            "one": np.array(1, "f"),
            "half": np.array(0.5, "f"),
        },
    ).SerializeToString()
