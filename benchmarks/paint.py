"""Kernels against other libraries: painting photographs, combining maps."""

from __future__ import annotations

import cv2
import exports
import numpy as np
import torch
from measure import side_by_side, table

exports.torchvision_models()
from pytorch_grad_cam.utils.image import show_cam_on_image  # noqa: E402

from onnxcam.imaging.colour import colour_table  # noqa: E402
from onnxcam.imaging.preprocess import Geometry, Placement  # noqa: E402
from onnxcam.kernels import native, reference  # noqa: E402

SIZES = {"0.3 MP": (480, 640), "2 MP": (1224, 1632), "12 MP": (3000, 4000)}


def painting(rounds: int = 5) -> str:
    """The overlay of a photograph, against ``cv2.resize`` and ``show_cam_on_image``."""
    rng = np.random.default_rng(0)
    raw = rng.uniform(size=(7, 7)).astype(np.float32)
    colours = colour_table()
    rows = []
    for name, (height, width) in SIZES.items():
        photo = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        geometry = Geometry(
            Placement(height, 224, 224 / height, 0.0), Placement(width, 224, 224 / width, 0.0)
        )
        view = geometry.view(7, 7)

        def theirs(photo: np.ndarray = photo) -> np.ndarray:
            heat = cv2.resize(raw, photo.shape[1::-1])
            return show_cam_on_image(np.float32(photo) / 255, heat / heat.max(), use_rgb=True)

        seconds, ratios = side_by_side(
            {
                "native": lambda p=photo, v=view: native.paint(p, raw, v, colours, 0.5, 0.5),
                "reference": lambda p=photo, v=view: reference.paint(p, raw, v, colours, 0.5, 0.5),
                "opencv": theirs,
            },
            rounds,
        )
        rows.append(
            [name, *(f"{s * 1e3:.1f}" for s in seconds.values()), f"{ratios['opencv']:.1f}"]
        )
    header = ["photograph", "native, ms", "NumPy, ms", "OpenCV + show_cam_on_image, ms", "times"]
    return table(header, rows)


def combining(rounds: int = 5) -> str:
    """The map from activations and gradients, against PyTorch on one thread."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    rows = []
    for n, t, k, side in ((1, 1, 2048, 7), (8, 1, 2048, 7), (8, 5, 512, 14), (1, 1, 256, 56)):
        a = rng.normal(size=(n, k, side, side)).astype("f")
        g = rng.normal(size=(n, t, k, side, side)).astype("f")
        ta, tg = torch.from_numpy(a), torch.from_numpy(g)
        seconds, ratios = side_by_side(
            {
                "native": lambda a=a, g=g: native.combine(a, g),
                "reference": lambda a=a, g=g: reference.combine(a, g),
                "torch": lambda a=ta, g=tg: torch.einsum("ntk,nkhw->nthw", g.mean((3, 4)), a),
            },
            rounds,
            0.1,
        )
        shape = f"N={n} T={t} {k}x{side}x{side}"
        rows.append(
            [shape, *(f"{s * 1e3:.2f}" for s in seconds.values()), f"{ratios['torch']:.1f}"]
        )
    header = ["shape", "native, ms", "NumPy, ms", "PyTorch, ms", "times"]
    return table(header, rows)


if __name__ == "__main__":
    print(painting(), combining(), sep="\n\n")
