"""Grad-CAM over the plain forward pass of the same model in ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import exports  # defines torchvision's operators before the peers import it
import numpy as np
import onnxruntime
import torch
from measure import side_by_side, table

exports.torchvision_models()
warnings.simplefilter("ignore")

import onnxcam  # noqa: E402

AIMS = dict.fromkeys(exports.NAMES, 1.05) | {"vgg16": 1.10}
THREADS = 2


def target_layer(model: torch.nn.Module, name: str) -> torch.nn.Module:
    """The module whose output onnxcam explains by default."""
    layers: dict[str, Callable[[Any], Any]] = {
        "resnet50": lambda m: m.layer4[-1],
        "vgg16": lambda m: m.features[29],
        "squeezenet1_1": lambda m: m.features[-1],
    }
    return layers.get(name, lambda m: m.features[-1])(model)


def peers(name: str, images: np.ndarray) -> dict[str, Callable[[], object]]:
    """Other tools on the same architecture, in PyTorch."""
    from captum.attr import LayerGradCam
    from pytorch_grad_cam import GradCAM
    from torchcam.methods import GradCAM as TorchCam

    model = exports.network(name)
    layer = target_layer(model, name)
    batch = torch.from_numpy(images)
    first, second = GradCAM(model, [layer]), LayerGradCam(model, layer)

    def captum() -> object:
        with torch.no_grad():
            best = model(batch).argmax(1)
        return second.attribute(batch, target=best).detach().numpy()

    def torch_cam() -> object:
        with TorchCam(model, layer) as extractor:
            scores = model(batch)
            return extractor(scores.argmax(1).tolist(), scores)

    return {
        "pytorch-grad-cam": lambda: first(input_tensor=batch, targets=None),
        "captum": captum,
        "torch-cam": torch_cam,
    }


def run(rounds: int = 9) -> str:
    """Return the table."""
    torch.set_num_threads(THREADS)
    rows = []
    for name in exports.NAMES:
        path = exports.export(name)
        explainer = onnxcam.Explainer(path, preprocess="torchvision", providers="cpu")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        plain = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for batch in (1, 8):
            images = np.random.default_rng(0).normal(size=(batch, 3, 224, 224)).astype("f")
            seconds, ratios = side_by_side(
                {
                    "plain": lambda p=plain, i=images: p.run(None, {"input": i}),
                    "grad-cam": lambda e=explainer, i=images: e.explain_batch(i),
                    "top:5": lambda e=explainer, i=images: e.explain_batch(i, "top:5"),
                },
                rounds,
            )
            others, _ = side_by_side(peers(name, images), 2)
            rows.append(
                [
                    name,
                    str(batch),
                    f"{seconds['plain'] * 1e3:.2f}",
                    f"**{ratios['grad-cam']:.3f}**",
                    f"{AIMS[name]:.2f}",
                    f"**{ratios['top:5']:.3f}**",
                    "1.15",
                    *(f"{s / seconds['plain']:.1f}" for s in others.values()),
                ]
            )
            print(rows[-1], flush=True)
    header = ["model", "batch", "plain, ms", "grad-cam", "aim", "top:5", "aim"]
    return table([*header, "pytorch-grad-cam", "captum", "torch-cam"], rows)


if __name__ == "__main__":
    print(run())
