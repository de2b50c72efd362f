"""Check and time the GPU path on a real GPU, and print a Markdown section about it.

**Unverified on hardware.** No GPU was at hand when this was written: the script has run only as
``--rehearse``, where the CPU, NumPy and Numba's simulator stand in for the GPU, on tiny sizes.

    python benchmarks/gpu.py > gpu.md

Runs from the source tree, without the C kernels. Needs a GPU and its driver, CUDA, torch for
CUDA, onnx, onnx-ir, pillow, numba-cuda and onnxruntime-gpu. A section that cannot run says why,
and the next ones go on; what went wrong is on stderr in full.

    NUMBA_ENABLE_CUDASIM=1 python benchmarks/gpu.py --rehearse
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from measure import table

if not hasattr(np, "row_stack"):  # which numba-cuda 0.30 calls and NumPy 2.5 no longer has
    np.row_stack = np.vstack  # type: ignore[attr-defined]
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PACKAGES = ("onnxcam", "torch", "onnxruntime-gpu", "onnxruntime", "numba-cuda", "numba", "onnx")
ROUNDS = 7
Call = Callable[[], object]


class Place:
    """Where everything runs: a GPU, or in a rehearsal the CPU."""

    def __init__(self, rehearse: bool) -> None:
        import torch
        from numba import cuda

        from onnxcam.kernels import cuda as kernels

        self.rehearse, self.torch, self.kernels, self.cuda = rehearse, torch, kernels, cuda
        self.device = "cpu" if rehearse else "cuda"
        if rehearse:
            self.stream, self.l2, self.name = 0, 1, "none, this is a rehearsal on the CPU"
            return
        found = torch.cuda.get_device_properties(0)
        self.name, self.l2 = found.name, getattr(found, "L2_cache_size", 64 << 20)
        self.torch_stream = torch.cuda.Stream()
        self.stream = cuda.external_stream(self.torch_stream.cuda_stream)

    def sizes(self, real: Any, rehearsed: Any) -> Any:
        return rehearsed if self.rehearse else real

    @contextlib.contextmanager
    def on_stream(self) -> Iterator[None]:
        if self.rehearse:
            yield
        else:
            with self.torch.cuda.stream(self.torch_stream):
                yield

    def random(self, *shape: int, half: bool = False) -> Any:
        values = self.torch.rand(*shape, device=self.device) * 2 - 1
        return values.half() if half else values

    def given(self, tensor: Any) -> Any:
        """What kernels take: the tensor itself, which they read in place."""
        return self.cuda.to_device(tensor.numpy()) if self.rehearse else tensor

    def host(self, array: Any) -> np.ndarray:
        self.wait()
        return array.copy_to_host() if hasattr(array, "copy_to_host") else array.cpu().numpy()

    def wait(self) -> None:
        if not self.rehearse:
            self.torch.cuda.synchronize()

    def seconds(self, calls: list[Call], least: int = 20) -> float:
        """Median seconds a call, by CUDA events; ``calls`` differ only in their buffers."""
        calls = calls * math.ceil(self.sizes(least, 1) / len(calls))
        times = []
        with self.on_stream():
            for call in calls:
                call()
            self.wait()
            for _ in range(self.sizes(ROUNDS, 1)):
                if self.rehearse:
                    start = time.perf_counter()
                    for call in calls:
                        call()
                    times.append((time.perf_counter() - start) / len(calls))
                    continue
                first, last = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                for call in calls:
                    call()
                last.record()
                last.synchronize()
                times.append(first.elapsed_time(last) / 1e3 / len(calls))
        return statistics.median(times)

    def replayed(self, calls: list[Call]) -> float | None:
        """Seconds a call in a CUDA graph, without what launching costs the CPU."""
        if self.rehearse:
            return None
        try:
            graph = self.torch.cuda.CUDAGraph()
            with self.torch.cuda.graph(graph, stream=self.torch_stream):
                for call in calls:
                    call()
            return self.seconds([graph.replay]) / len(calls)
        except Exception:
            traceback.print_exc()
            return None

    def sets(self, bytes_moved: int) -> int:
        """How many sets of buffers to rotate among, so that together they fill L2 four times."""
        return self.sizes(max(2, math.ceil(4 * self.l2 / bytes_moved)), 1)


def bandwidth(place: Place) -> float:
    """Bytes a second, read and written, of a copy from device to device."""
    count = place.sizes(1 << 30, 1 << 16)
    a = place.random(count)
    b = place.torch.empty_like(a)
    return 2 * 4 * count / place.seconds([lambda: b.copy_(a)], 4)


def check(place: Place) -> str:
    """Fresh random input, results into poisoned memory, zero copy, on the stream."""
    from onnxcam.kernels import View, reference

    errors: dict[str, list[float]] = {}

    def compare(name: str, scale: float, shape: tuple[int, ...], *tensors: Any, **how: Any) -> None:
        rest = how.pop("rest", ())
        place.wait()
        poisoned = place.given(place.torch.full(shape, float("nan"), device=place.device))
        with place.on_stream():
            given = [place.given(t) for t in tensors]
            found = getattr(place.kernels, name)(
                *given, *rest, stream=place.stream, out=poisoned, **how
            )
        expected = getattr(reference, name)(*(t.cpu().numpy() for t in tensors), *rest, **how)
        error = np.abs(place.host(found) - expected).max() / scale
        errors.setdefault(name, []).append(float(error))

    for half in (False, True):
        shapes = place.sizes(
            [(8, 1, 2048, 7), (64, 5, 512, 14), (2, 2, 256, 56), (1, 1, 4096, 7), (1, 1, 3, 301)],
            [(2, 2, 33, 3), (1, 1, 3, 7)],
        )
        for n, t, k, side in shapes:
            a = place.random(n, k, side, side, half=half)
            g = place.random(n, t, k, side, side, half=half)
            alpha = g.double().mean((3, 4)).abs()
            scale = place.torch.einsum("ntk,nkhw->nthw", alpha, a.double().abs()).max().item()
            compare("combine", scale, (n, t, side, side), a, g, relu=half)
            scale = (g.double() * a.double()[:, None]).abs().sum(2).max().item()
            compare("combine_weighted", scale, (n, t, side, side), a, g)
        maps, wide = place.sizes((64, (224, 225)), (2, (17, 19)))
        raw = place.random(maps, 7, 7, half=half)
        view = View.whole(wide, (7, 7))
        compare("upsample", 1.0, (maps, *wide), raw, rest=(view,))
        compare("upsample", 1.0, (maps, *wide), raw, rest=(view,), normalise=True)
        guided = place.random(maps, 3, *wide, half=half)
        compare("fuse", 1.0, (maps, 3, *wide), guided, raw, rest=(view,))
    worst = {name: float(np.max(found)) for name, found in errors.items()}  # NaN stays NaN
    worst |= {f"{name}, small": error for name, error in place.kernels.check().items()}
    limits = {name: 2.0 if "paint" in name else 1e-5 for name in worst}
    rows = [
        [name, f"{e:.1e}", f"{limits[name]:.0e}", "ok" if e <= limits[name] else "**WRONG**"]
        for name, e in worst.items()
    ]
    return table(["kernel", "largest error", "limit", ""], rows)


def kernels(place: Place, peak: float) -> str:
    """Time the kernels against eager PyTorch and torch.compile."""
    from onnxcam.kernels import View

    torch, functional, k = place.torch, place.torch.nn.functional, place.kernels
    rows = []

    def row(
        name: str, moved: int, make: Callable[[], tuple[Any, ...]], ours: Any, theirs: Any
    ) -> None:
        buffers = [make() for _ in range(place.sets(moved))]
        calls: list[Call] = [lambda b=b: ours(*map(place.given, b)) for b in buffers]
        mine = place.seconds(calls)
        alone = place.replayed(calls)
        eager = compiled = None
        if theirs is not None:
            eager = place.seconds([lambda b=b: theirs(*b) for b in buffers])
            try:
                fast = theirs if place.rehearse else torch.compile(theirs)
                compiled = place.seconds([lambda b=b: fast(*b) for b in buffers])
            except Exception:
                traceback.print_exc()
        share = moved / mine / peak
        others = [f"{o / mine:.1f}" if o else "not run" for o in (eager, compiled)]
        graph = [f"{alone * 1e6:.1f}", f"{moved / alone / peak:.0%}"] if alone else ["not run"] * 2
        figures = [f"{moved / 1e6:.1f}", f"{mine * 1e6:.1f}", f"{share:.0%}", *graph, *others]
        rows.append([name, *figures])
        print(rows[-1], file=sys.stderr, flush=True)

    def eager_combine(a: Any, g: Any, out: Any) -> Any:
        return torch.relu(torch.einsum("ntk,nkhw->nthw", g.mean((3, 4)), a))

    for half in (False, True):
        for n in place.sizes((512, 64), (3,)):
            c, s = place.sizes((2048, 7), (40, 3))
            moved = 2 * n * c * s * s * (2 if half else 4) + n * s * s * 4
            row(
                f"combine {n}x{c}x{s}x{s} {'float16' if half else 'float32'}",
                moved,
                lambda n=n, c=c, s=s, half=half: (
                    place.random(n, c, s, s, half=half),
                    place.random(n, 1, c, s, s, half=half),
                    torch.empty(n, 1, s, s, device=place.device),
                ),
                lambda a, g, out: k.combine(a, g, relu=True, stream=place.stream, out=out),
                eager_combine,
            )
    side = place.sizes(224, 16)
    view = View.whole((side, side), (7, 7))
    for n in place.sizes((1024, 64), (2,)):
        for normalise in (False, True):

            def eager_upsample(raw: Any, out: Any, normalise: bool = normalise) -> Any:
                size = (side, side)
                up = functional.interpolate(raw[:, None], size, mode="bilinear")[:, 0]
                return up / up.amax((1, 2), keepdim=True) if normalise else up

            row(
                f"upsample {n}x7x7 to {side}{', normalised' if normalise else ''}",
                4 * n * (49 + side * side),
                lambda n=n: (
                    place.random(n, 7, 7).abs(),
                    torch.empty(n, side, side, device=place.device),
                ),
                lambda raw, out, normalise=normalise: k.upsample(
                    raw, view, normalise=normalise, stream=place.stream, out=out
                ),
                eager_upsample,
            )

    def eager_fuse(guided: Any, raw: Any, out: Any) -> Any:
        return guided * functional.interpolate(raw[:, None], (side, side), mode="bilinear")

    n = place.sizes(256, 2)
    row(
        f"fuse {n}x3x{side}x{side}",
        4 * n * (49 + 6 * side * side),
        lambda: (
            place.random(n, 3, side, side),
            place.random(n, 7, 7),
            torch.empty(n, 3, side, side, device=place.device),
        ),
        lambda guided, raw, out: k.fuse(guided, raw, view, stream=place.stream, out=out),
        eager_fuse,
    )
    tall, wide = place.sizes((3000, 4000), (12, 16))
    picture = View.whole((tall, wide), (7, 7))

    def bytes_of(*shape: int) -> Any:
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=place.device)

    row(
        f"paint {tall}x{wide}",
        6 * tall * wide,
        lambda: (
            bytes_of(tall, wide, 3),
            place.random(7, 7).abs(),
            bytes_of(256, 3),
            bytes_of(tall, wide, 3),
        ),
        lambda photo, raw, colours, out: k.paint(
            photo, raw, picture, colours, 0.5, 0.5, stream=place.stream, out=out
        ),
        None,
    )
    header = ["kernel", "MB to move", "microseconds", "of copy bandwidth"]
    header += ["in a CUDA graph", "of copy bandwidth"]
    return table([*header, "eager PyTorch, times", "torch.compile, times"], rows)


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
        options = {"use_tf32": str(int(tf32))}
        providers = [("CUDAExecutionProvider", options)]
        return Session(model, self.path.parent, providers, stream=self.place.stream)

    def images(self, count: int) -> np.ndarray:
        shape = (count, 3, self.side, self.side)
        return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def end_to_end(place: Place, network: Network) -> str:
    """Grad-CAM over the plain forward pass; inputs and outputs on the device, no waiting."""
    from onnxcam.surgeon.instrument import instrument
    from onnxcam.surgeon.plan import CLASSES, SIGNED

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
                a = place.seconds([lambda p=plain, x=first: p.run_on_device({"input": x})])
                b = place.seconds(
                    [lambda c=cam, x=second, o=outputs: c.run_on_device({"input": x}, o)]
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
    from onnxcam.surgeon.instrument import instrument
    from onnxcam.surgeon.plan import GRADIENTS, SIGNED

    images = network.images(place.sizes(16, 2))
    data, plan = instrument(network.path, gradients=True)
    wanted = [plan.layer.name, GRADIENTS]
    inside = network.session(instrument(network.path)[0]).run({"input": images}, [SIGNED])[SIGNED]
    session = network.session(data)
    uploaded = session.upload(images)
    worst = 0.0
    for _ in range(place.sizes(50, 2)):
        found = session.run_on_device({"input": uploaded}, wanted)
        a, g = found[plan.layer.name], found[GRADIENTS]
        if place.rehearse:
            a, g = place.cuda.to_device(a.numpy()), place.cuda.to_device(g.numpy()[0][:, None])
        else:
            n, k, *space = a.shape
            g = g.reshape(n, 1, k, *space)  # [1, N, K, *S] lies alike
        maps = place.kernels.combine(a, g)  # on the stream that the outputs name
        copied = maps.copy_to_host(stream=place.stream)
        place.wait()
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


def traffic(place: Place, network: Network) -> str:
    """Bytes between host and device, counted, and ONNX Runtime's own copies, profiled."""
    import onnxruntime

    from onnxcam import cards, explainer
    from onnxcam.surgeon.instrument import instrument

    if not (ROOT / "onnxcam" / "models").exists():
        cards.MODELS = ROOT / "models"
    if place.rehearse:
        explainer.Session = lambda *args: network.session(args[0])  # type: ignore[misc, assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = explainer.Explainer(network.path, providers="cpu" if place.rehearse else "cuda")
    images = network.images(place.sizes(64, 9))
    start = time.perf_counter()
    found = made.explain_batch(images)
    seconds = time.perf_counter() - start
    maps = sum(e.signed.nbytes for [e] in found)
    answers = len(images) * (1000 * 4 + 8)  # scores and the predicted classes
    exact = (made.traffic.to_device, made.traffic.to_host) == (images.nbytes, maps + answers)
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
    from onnxcam.surgeon.instrument import instrument

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


def versions() -> str:
    found = []
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


def section(title: str, run: Callable[[], str]) -> None:
    """Print a section, or why there is none."""
    print(f"### {title}\n", flush=True)
    try:
        print(run(), end="\n\n", flush=True)
    except Exception as error:
        traceback.print_exc()
        text = " ".join(str(error).split())[:300]
        print(f"Not run: {type(error).__name__}: {text}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Check and time the GPU path.")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU")
    rehearse = parser.parse_args().rehearse
    print("## On a GPU\n")
    try:
        place = Place(rehearse)
    except Exception as error:
        traceback.print_exc()
        print(f"Nothing was run: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        sys.exit(1)
    from onnxcam.runtime.gpu import find_gpu

    print(f"GPU: {place.name} ({find_gpu()}), Python {sys.version.split()[0]}; {versions()}.\n")
    peak: list[float] = []

    def copy() -> str:
        peak.append(bandwidth(place))
        return f"A copy moves {peak[0] / 1e12:.2f} TB/s, read and written."

    section("Kernels against the reference", lambda: check(place))
    section("Bandwidth, device to device", copy)
    section("Kernels against PyTorch", lambda: kernels(place, peak[0] if peak else math.nan))
    with tempfile.TemporaryDirectory() as folder:
        made: list[Network] = []

        def network() -> Network:
            if not made:
                made.append(Network(place, Path(folder)))
            return made[0]

        section("Grad-CAM over the forward pass", lambda: end_to_end(place, network()))
        section("Gradients on the device", lambda: shared_stream(place, network()))
        section("Traffic", lambda: traffic(place, network()))
        section("Memory", lambda: memory(place, network()))


if __name__ == "__main__":
    main()
