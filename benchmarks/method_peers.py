"""Other tools' methods in PyTorch, over PyTorch's own forward pass of the same network."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import exports
import numpy as np
import torch
from measure import paired

Function = Callable[[], object]
GRAD_CAM = {
    "grad-cam": "GradCAM", "grad-cam++": "GradCAMPlusPlus", "xgrad-cam": "XGradCAM",
    "hires-cam": "HiResCAM", "layer-cam": "LayerCAM", "grad-cam-elementwise": "GradCAMElementWise",
    "finer-cam": "FinerCAM", "eigen-cam": "EigenCAM", "eigen-grad-cam": "EigenGradCAM",
    "random-cam": "RandomCAM", "full-grad": "FullGrad", "shapley-cam": "ShapleyCAM",
    "kpca-cam": "KPCA_CAM", "fem": "FEM",
}  # fmt: skip
CHANNELS = {"score-cam": "ScoreCAM", "ablation-cam": "AblationCAM"}
CAPTUM = {
    "saliency": "Saliency", "input-x-gradient": "InputXGradient", "deep-lift": "DeepLift",
    "guided-backprop": "GuidedBackprop", "deconvnet": "Deconvolution",
}  # fmt: skip
STEPS = 16


class Peer(NamedTuple):
    """A tool's method; ``passes`` are its runs, where the forward pass alone is run many times."""

    method: str
    tool: str
    run: Function
    passes: int = 1


def layer_of(model: Any, name: str) -> torch.nn.Module:
    """Return the module whose output is explained."""
    if name.startswith("vit_"):
        return model.blocks[-1].norm1  # as pytorch-grad-cam's own example
    if name.startswith("resnet"):
        return model.layer4[-1]
    return model.features[29] if name == "vgg16" else model.features[-1]


def _grid(tokens: torch.Tensor) -> torch.Tensor:
    """Return patches ``[N, K, H, W]`` of tokens ``[N, 1 + H W, K]``."""
    side = round((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))


def grad_cams(model: Any, name: str, x: torch.Tensor) -> Iterator[Peer]:
    import pytorch_grad_cam as peer

    layer = layer_of(model, name)
    reshape = _grid if name.startswith("vit_") else None
    for method, kind in GRAD_CAM.items():
        if method == "full-grad" and reshape:
            continue
        made = getattr(peer, kind)(model, [layer], reshape)
        yield Peer(method, "pytorch-grad-cam", lambda m=made: m(input_tensor=x, targets=None))
    if name == "mobilenet_v2":
        with torch.no_grad():
            count = model.features(x).shape[1]
        for method, kind in CHANNELS.items():
            made = getattr(peer, kind)(model, [layer])
            run = lambda m=made: m(input_tensor=x, targets=None)  # noqa: E731
            yield Peer(method, "pytorch-grad-cam", run, count)


def captums(model: Any, name: str, x: torch.Tensor) -> Iterator[Peer]:
    import captum.attr as peer

    for method, kind in CAPTUM.items():
        if name.startswith("vit_") and method not in ("saliency", "input-x-gradient"):
            continue
        made = getattr(peer, kind)(exports.network(name))
        yield Peer(method, "captum", lambda m=made: m.attribute(x, target=281))
    if not name.startswith("vit_"):
        fused = exports.network(name)
        both = peer.GuidedGradCam(fused, layer_of(fused, name))
        yield Peer("guided-grad-cam", "captum", lambda: both.attribute(x, target=281))
    if name == "mobilenet_v2":
        path, noise = peer.IntegratedGradients(model), peer.NoiseTunnel(peer.Saliency(model))
        hidden, many = peer.Occlusion(model), {"internal_batch_size": 8}
        yield Peer("integrated-gradients", "captum",
                   lambda: path.attribute(x, target=281, n_steps=STEPS, **many), STEPS)  # fmt: skip
        yield Peer("smooth-grad", "captum",
                   lambda: noise.attribute(x, target=281, nt_samples=STEPS, nt_samples_batch_size=8, abs=False),
                   STEPS)  # fmt: skip
        # As onnxcam's: 32 wide, every 16.
        yield Peer("occlusion", "captum",
                   lambda: hidden.attribute(x, (3, 32, 32), (3, 16, 16), target=281, perturbations_per_eval=8),
                   169)  # fmt: skip


def zennits(model: Any, name: str, x: torch.Tensor) -> Iterator[Peer]:
    """Yield the rules of zennit; batch normalization is merged into convolutions first."""
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlusFlat, ExcitationBackprop
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    if name.startswith("vit_"):
        return
    canonizers = [ResNetCanonizer() if name.startswith("resnet") else VGGCanonizer()]
    seed = torch.eye(1000)[[281] * len(x)]

    def attributed(composite: Any) -> object:
        with Gradient(exported, composite) as attributor:
            return attributor(x.clone().requires_grad_(), seed)

    exported = exports.network(name)
    yield Peer("lrp", "zennit", lambda: attributed(EpsilonPlusFlat(canonizers=canonizers)))
    excited = lambda: attributed(ExcitationBackprop(canonizers=canonizers))  # noqa: E731
    yield Peer("excitation-bp", "zennit, to the image", excited)


def dianna(path: Path, x: torch.Tensor, masks: int = 128) -> Peer | None:
    """Return DIANNA's RISE of the same ONNX file; without p_keep it would run 900 images more."""
    if importlib.util.find_spec("dianna") is None:
        return None
    from dianna.methods.rise_image import RISEImage

    image = x[0].numpy()
    return Peer(
        "rise", "DIANNA",
        lambda: RISEImage(n_masks=masks, p_keep=0.5).explain(str(path), image, [281]), masks,
    )  # fmt: skip


def measured(on: Any, given: Any) -> dict[tuple[str, str], float]:
    """Return the ratios by method and tool, of one image; ``on`` and ``given`` as in methods.py.

    Those of many runs are over as many images' forward pass, at the better of batch 1 and 8.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    model = exports.network(on.name)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype("f"))

    def plain(images: torch.Tensor = x) -> object:
        with torch.no_grad():
            return model(images)

    eight = x.repeat(8, 1, 1, 1)
    _, ratio = paired(plain, lambda: plain(eight), 3, given.seconds, given.clock)
    found = {}
    tried = [p for tools in (grad_cams, captums, zennits) for p in tools(model, on.name, x)]
    for peer in tried:
        if given.methods and peer.method not in given.methods:
            continue
        try:
            _, taken = paired(plain, peer.run, given.repeats, given.seconds, given.clock)
        except Exception as error:  # a tool's own failure on this network
            print(f"{on.name}: {peer.tool}, {peer.method}: {error}"[:200], flush=True)
            continue
        share = 1 if peer.passes == 1 else peer.passes * min(1, ratio / 8)
        found[peer.method, peer.tool] = taken / share
    peer = dianna(on.path, x)
    if peer and on.name == "mobilenet_v2" and (not given.methods or peer.method in given.methods):
        image = x.numpy()  # it runs the file, so ONNX Runtime's pass is what it is measured by
        _, taken = paired(
            lambda: on.plain(image), peer.run, given.repeats, given.seconds, given.clock
        )
        found[peer.method, peer.tool] = taken / (peer.passes * on.best)
    return found
