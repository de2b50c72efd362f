"""Kernels of the CPU against NumPy, PyTorch and OpenCV, on one thread and on two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import exports
import numpy as np
import torch
from measure import quickest, table
from torch.nn.functional import interpolate

exports.torchvision_models()
from pytorch_grad_cam.utils.image import show_cam_on_image  # noqa: E402

from onnxcam.imaging.colour import colour_table  # noqa: E402
from onnxcam.imaging.preprocess import Geometry, Placement  # noqa: E402
from onnxcam.kernels import View, native, reference  # noqa: E402

PHOTOGRAPHS = {"0.3 MP": (480, 640), "2 MP": (1224, 1632), "12 MP": (3000, 4000)}
LAYERS = {"7x7x2048": (2048, 7), "14x14x512": (512, 14), "56x56x256": (256, 56)}
BATCHES = (1, 8, 64)
THREADS = (1, 2)
SIDE = 224
ROUNDS = 8


def noise(*shape: int) -> np.ndarray:
    """Return numbers with a mean of 1, a few of them repeated, since a billion take long."""
    return np.resize(np.random.default_rng(0).normal(1, 1, 1_000_003).astype("f"), shape)


def compared(
    numpy: Callable[[], object],
    ours: Callable[[int], object],
    theirs: Callable[[], object],
    rounds: int,
) -> list[str]:
    """Return NumPy's time, then for each number of threads both times and their ratio."""
    cells = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        functions: dict[str, Callable[[], object]] = {
            "native": lambda threads=threads: ours(threads),
            "theirs": theirs,
        }
        if not cells:
            cells.append(f"{quickest({'numpy': numpy}, 1)['numpy'] * 1e3:.3g}")
        seconds = quickest(functions, rounds)
        cells += [f"{seconds[name] * 1e3:.3g}" for name in functions]
        cells.append(f"**{seconds['theirs'] / seconds['native']:.2f}**")
    return cells


def header(*first: str, theirs: str) -> list[str]:
    cells = [*first, "NumPy, ms"]
    for threads in THREADS:
        plural = "thread" if threads == 1 else "threads"
        cells += [f"{threads} {plural}: native, ms", f"{theirs}, ms", "times"]
    return cells


def painting(rounds: int = ROUNDS) -> str:
    """The overlay of a photograph, against ``cv2.resize`` and ``show_cam_on_image``."""
    rng = np.random.default_rng(0)
    raw = rng.uniform(size=(7, 7)).astype(np.float32)
    colours = colour_table()
    rows = []
    for name, (height, width) in PHOTOGRAPHS.items():
        photo = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        geometry = Geometry(
            Placement(height, SIDE, SIDE / height, 0.0), Placement(width, SIDE, SIDE / width, 0.0)
        )
        view = geometry.view(7, 7)

        def numpy(photo: np.ndarray = photo, view: View = view) -> object:
            return reference.paint(photo, raw, view, colours, 0.5, 0.5)

        def ours(threads: int, photo: np.ndarray = photo, view: View = view) -> object:
            return native.paint(photo, raw, view, colours, 0.5, 0.5, threads=threads)

        def theirs(photo: np.ndarray = photo) -> object:
            heat = cv2.resize(raw, photo.shape[1::-1])
            return show_cam_on_image(np.float32(photo) / 255, heat / heat.max(), use_rgb=True)

        rows.append([name, *compared(numpy, ours, theirs, rounds)])
        print(rows[-1], flush=True)
    return table(header("photograph", theirs="OpenCV"), rows)


def combining(
    rounds: int = ROUNDS,
    dtype: str = "float32",
    batches: Sequence[int] = BATCHES,
    counts: Sequence[int] = (1, 5),
) -> str:
    """The map from activations and gradients, against ``mean``, ``einsum`` and ``relu``."""
    rows = []
    for name, (channels, side) in LAYERS.items():
        for batch in batches:
            a = noise(batch, channels, side, side).astype(dtype)
            for targets in counts:
                g = noise(batch, targets, channels, side, side).astype(dtype)
                tensors = torch.from_numpy(a), torch.from_numpy(g)

                def numpy(a: np.ndarray = a, g: np.ndarray = g) -> object:
                    return reference.combine(a, g, relu=True)

                def ours(threads: int, a: np.ndarray = a, g: np.ndarray = g) -> object:
                    return native.combine(a, g, relu=True, threads=threads)

                def theirs(a: torch.Tensor = tensors[0], g: torch.Tensor = tensors[1]) -> object:
                    return torch.einsum("ntk,nkhw->nthw", g.mean((3, 4)), a).relu()

                rows.append(
                    [name, str(batch), str(targets), *compared(numpy, ours, theirs, rounds)]
                )
                print(rows[-1], flush=True)
    return table(header("layer", "batch", "targets", theirs="PyTorch"), rows)


def resizing(rounds: int = ROUNDS) -> str:
    """Maps resized to the input tensor, alone and times guided gradients: ``interpolate``."""
    rows = []
    view = View.whole((SIDE, SIDE), (7, 7))
    for batch in BATCHES:
        raw, guided = noise(batch, 1, 7, 7), noise(batch, 1, 3, SIDE, SIDE)
        maps, gradients = torch.from_numpy(raw), torch.from_numpy(guided)[:, 0]

        def resized(maps: torch.Tensor = maps) -> torch.Tensor:
            return interpolate(maps, (SIDE, SIDE), mode="bilinear")

        rows.append(
            [
                "upsample",
                str(batch),
                *compared(
                    lambda raw=raw: reference.upsample(raw, view),
                    lambda threads, raw=raw: native.upsample(raw, view, threads=threads),
                    resized,
                    rounds,
                ),
            ]
        )
        print(rows[-1], flush=True)
        rows.append(
            [
                "fuse",
                str(batch),
                *compared(
                    lambda guided=guided, raw=raw: reference.fuse(guided, raw),
                    lambda threads, guided=guided, raw=raw: native.fuse(
                        guided, raw, threads=threads
                    ),
                    lambda resized=resized, gradients=gradients: resized() * gradients,
                    rounds,
                ),
            ]
        )
        print(rows[-1], flush=True)
    return table(header("kernel", "batch", theirs="PyTorch"), rows)


if __name__ == "__main__":
    print(painting(), combining(), resizing(), sep="\n\n")
