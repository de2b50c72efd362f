"""Whole networks on the GPU: time, streams, traffic and memory."""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from gpu_place import ROUNDS, Place
from measure import table
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def resnet50(torch: Any, widths: tuple[int, ...], depths: tuple[int, ...]) -> Any:
    """ResNet-50, He et al. 2015, with random weights."""
    nn = torch.nn

    def conv(i: int, o: int, kernel: int, stride: int = 1) -> Any:
        layer = nn.Conv2d(i, o, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(o))

    class Block(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self, i: int, width: int, stride: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                conv(i, width, 1), nn.ReLU(), conv(width, width, 3, stride), nn.ReLU(),
                conv(width, 4 * width, 1),
            )  # fmt: skip
            same = stride == 1 and i == 4 * width
            self.skip = nn.Identity() if same else conv(i, 4 * width, 1, stride)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.body(x) + self.skip(x))

    layers = [conv(3, widths[0], 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for i in range(depth):
            layers.append(Block(channels, width, 2 if i == 0 and stage else 1))
            channels = 4 * width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)]
    return nn.Sequential(*layers, *head).eval()


class Network:
    """The network as a file, and sessions of it on the place's stream."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.path, self.side = place, folder / "resnet50.onnx", place.sizes(224, 64)
        torch = place.torch
        torch.manual_seed(0)
        widths, depths = place.sizes(
            ((64, 128, 256, 512), (3, 4, 6, 3)), ((4, 8, 8, 8), (1, 1, 1, 1))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                resnet50(torch, widths, depths),
                torch.zeros(1, 3, self.side, self.side),
                str(self.path),
                input_names=["input"],
                output_names=["logits"],
                dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
                opset_version=17,
                dynamo=False,
            )

    def session(self, model: bytes | Path, tf32: bool = False) -> Any:
        from onnxcam.runtime.session import Session

        if self.place.rehearse:
            session = Session(model, self.path.parent, "cpu")
            session.device = "cpu"
            return session
        # Without HEURISTIC each session times cuDNN's algorithms and chooses its own.
        options = {"use_tf32": str(int(tf32)), "cudnn_conv_algo_search": "HEURISTIC"}
        providers = [("CUDAExecutionProvider", options)]
        return Session(model, self.path.parent, providers, stream=self.place.stream)

    def images(self, count: int) -> np.ndarray:
        shape = (count, 3, self.side, self.side)
        return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def end_to_end(place: Place, network: Network) -> str:
    """Grad-CAM over the plain forward pass; inputs and outputs on the device, waited for at the end.

    The host's part counts: it is what a user waits for.
    """
    from onnxcam.surgeon.plan import CLASSES
    from tests.instrumented import SIGNED, instrument

    data, plan = instrument(network.path)
    rows = []
    for tf32 in place.sizes((False, True), (False,)):
        plain, cam = network.session(network.path, tf32), network.session(data, tf32)
        for batch in place.sizes((1, 16, 64), (2,)):
            images = network.images(batch)
            first, second = plain.upload(images), cam.upload(images)
            outputs = [plan.scores, CLASSES, SIGNED]
            ratios, times = [], []
            for _ in range(place.sizes(ROUNDS, 1)):
                least = place.sizes(max(200 // batch, 20), 1)
                a = place.elapsed(lambda p=plain, x=first: p.run_on_device({"input": x}), least)
                b = place.elapsed(
                    lambda c=cam, x=second, o=outputs: c.run_on_device({"input": x}, o), least
                )
                times.append((a, b))
                ratios.append(b / a)
            a, b = map(statistics.median, zip(*times, strict=True))
            figures = [f"{a * 1e3:.3f}", f"{b * 1e3:.3f}", f"**{statistics.median(ratios):.3f}**"]
            rows.append(["on" if tf32 else "off", str(batch), *figures, "1.10"])
            print(rows[-1], file=sys.stderr, flush=True)
    return table(["TF32", "batch", "plain, ms", "grad-cam, ms", "ratio", "aim"], rows)


def shared_stream(place: Place, network: Network) -> str:
    """Gradients left on the device and combined there, against the map from inside the graph."""
    from tests.instrumented import ACTIVATIONS, GRADIENTS, SIGNED, instrument

    images = network.images(place.sizes(16, 2))
    data, _ = instrument(network.path, gradients=True)
    wanted = [ACTIVATIONS, GRADIENTS]
    inside = network.session(instrument(network.path)[0]).run({"input": images}, [SIGNED])[SIGNED]
    session = network.session(data)
    uploaded = session.upload(images)
    worst = 0.0
    for _ in range(place.sizes(50, 2)):
        found = session.run_on_device({"input": uploaded}, wanted)
        a, g = found[ACTIVATIONS], found[GRADIENTS]
        if place.rehearse:
            a, g = place.cuda.to_device(a.numpy()), place.cuda.to_device(g.numpy()[0][:, None])
        else:
            n, k, *space = a.shape
            g = g.reshape(n, 1, k, *space)  # [1, N, K, *S] lies alike
        maps = place.kernels.combine(a, g)  # on the stream that the outputs name
        copied = place.kernels.to_host(maps, place.stream)
        worst = max(worst, float(np.abs(copied - inside).max() / np.abs(inside).max()))
    moved = session.traffic
    exact = moved.to_device == images.nbytes and (place.rehearse or moved.to_host == 0)
    return (
        f"Activations and gradients of {len(images)} images stayed on the device; combined there "
        f"without waiting in between, the maps differ from those made inside the graph by at most "
        f"{worst:.1e} of their largest value ({'ok' if worst < 1e-3 else '**WRONG**'}). Moved: "
        f"{moved.to_device:,} bytes in, {moved.to_host:,} out by the session "
        f"({'as it should be' if exact else '**WRONG**'})."
    )


def _find_cards() -> None:
    from onnxcam.inputs import cards

    if not (ROOT / "onnxcam" / "models").exists():  # the source tree, not installed
        cards.MODELS = ROOT / "models"


METHODS = ["grad-cam", "layer-cam", "grad-cam++", "excitation-bp", "saliency", "guided-grad-cam"]
METHODS += ["eigen-cam", "integrated-gradients:steps=4"]


def explanations(place: Place, network: Network) -> str:
    """What the explainer makes on the GPU against what it makes on the CPU, and what it moves."""
    from onnxcam.explainer import Explainer

    _find_cards()
    images = network.images(place.sizes(16, 2))
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (48, 64, 3)).astype(np.uint8))
    rows = []
    for method in METHODS:
        on_cpu = Explainer(network.path, method=method, preprocess="unit", providers="cpu")
        expected, picture = on_cpu.explain_batch(images), on_cpu.explain(photo)[0].overlay()
        with place.as_device():
            explainer = Explainer(
                network.path, method=method, preprocess="unit", providers=place.providers
            )
            found = explainer.explain_batch(images, [e.target for e in expected[0]][:1])
            moved, painted = explainer.traffic.to_host, explainer.explain(photo)[0]
            levels = np.abs(np.asarray(painted.overlay(), int) - np.asarray(picture, int)).max()
        same = [(a, b) for [a], [b] in zip(found, expected, strict=True) if a.target == b.target]
        error = max(np.abs(a.signed - b.signed).max() / np.abs(b.signed).max() for a, b in same)
        size = sum(a.signed.nbytes for [a] in found)
        where = "GPU" if painted.on_device is not None else "host"
        rows.append([method, f"{error:.1e}", str(levels), where, f"{moved:,}", f"{size:,}"])
        print(rows[-1], file=sys.stderr, flush=True)
    head = [
        "method",
        "error of the map",
        "of the picture, levels",
        "painted on",
        "bytes out",
        "maps",
    ]
    return table(head, rows)


def traffic(place: Place, network: Network) -> str:
    """Bytes between host and device, counted, and ONNX Runtime's own copies, profiled."""
    import onnxruntime

    from onnxcam.explainer import Explainer
    from tests.instrumented import instrument

    _find_cards()
    images = network.images(place.sizes(64, 9))
    with place.as_device():
        made = Explainer(network.path, preprocess="unit", providers=place.providers)
        start = time.perf_counter()
        found = made.explain_batch(images)
        seconds = time.perf_counter() - start
    maps = sum(e.signed.nbytes for [e] in found)
    answers = len(images) * (1000 * 4 + 8)  # scores and the predicted classes
    out = maps + (0 if place.rehearse else answers)  # the pretended device's are not counted
    exact = (made.traffic.to_device, made.traffic.to_host) == (images.nbytes, out)
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(network.path.with_name("profile"))
    provider = "CPUExecutionProvider" if place.rehearse else "CUDAExecutionProvider"
    data = instrument(network.path)[0]
    session = onnxruntime.InferenceSession(data, options, providers=[provider])
    session.run(None, {"input": images[:8]})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = {e["args"]["op_name"]: 0 for e in events if "op_name" in e.get("args", {})}
    copies = [e["name"] for e in events if "Memcpy" in str(e.get("args", {}).get("op_name", ""))]
    names = ", ".join(sorted({name.removesuffix("_kernel_time") for name in copies})) or "none"
    return (
        f"`explain_batch` of {len(images)} arrays, {seconds * 1e3:.0f} ms with the first run's "
        f"preparations: {made.traffic.to_device:,} bytes in, of which images {images.nbytes:,}; "
        f"{made.traffic.to_host:,} out, of which maps {maps:,}, scores and classes {answers:,} "
        f"({'as it should be' if exact else '**WRONG**'}). Copy nodes that ONNX Runtime put into "
        f"the graph ({len(ran)} kinds of operators ran): {names}."
    )


def memory(place: Place, network: Network) -> str:
    """Host and device memory over 1,000 calls."""
    from tests.instrumented import instrument

    session = network.session(instrument(network.path)[0])
    images = network.images(2)
    a, g = (place.given(place.random(*s)) for s in ((2, 64, 7, 7), (2, 1, 64, 7, 7)))
    marks = []
    for done in range(1, place.sizes(1000, 20) + 1):
        session.run({"input": images})
        with place.on_stream():
            place.kernels.combine(a, g, stream=place.stream)
        if done in (10, 100, place.sizes(1000, 20)):
            place.wait()
            status = Path("/proc/self/status").read_text()
            resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
            used = 0.0
            if not place.rehearse:
                free, total = place.torch.cuda.mem_get_info()
                used = (total - free) / 2**20
            marks.append((done, resident, used))
    _, host, device = marks[0]
    rows = [[str(d), f"{h:.1f}", f"{h - host:+.1f}", f"{u:.1f}", f"{u - device:+.1f}"]
            for d, h, u in marks]  # fmt: skip
    return table(["after", "host, MiB", "since the 10th", "device, MiB", "since the 10th"], rows)
