"""The CUDA kernels: checked against the reference, timed against PyTorch."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from gpu_place import Call, Place
from measure import table


def bandwidth(place: Place) -> float:
    """Bytes a second, read and written, of a copy from device to device."""
    count = place.sizes(1 << 30, 1 << 16)
    a = place.random(count)
    b = place.torch.empty_like(a)
    return 2 * 4 * count / place.seconds([lambda: b.copy_(a)], 4)[0]


def check(place: Place) -> str:
    """Fresh random input, results into poisoned memory, zero copy, on the stream."""
    from onnxcam.kernels import View, reference

    errors: dict[str, list[float]] = {}

    def compare(name: str, scale: float, shape: tuple[int, ...], *tensors: Any, **how: Any) -> None:
        rest = how.pop("rest", ())
        poisoned = place.given(place.torch.full(shape, float("nan"), device=place.device))
        place.wait()  # for what the default stream fills
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
    """Time the kernels against eager PyTorch and torch.compile, all in CUDA graphs.

    What launching costs the host stands in columns of its own.
    """
    from onnxcam.kernels import View

    torch, functional, k = place.torch, place.torch.nn.functional, place.kernels
    rows = []

    def row(
        name: str, moved: int, make: Callable[[], tuple[Any, ...]], ours: Any, theirs: Any
    ) -> None:
        buffers = [make() for _ in range(place.sets(moved))]
        calls: list[Call] = [lambda b=b: ours(*map(place.given, b)) for b in buffers]
        mine, host = place.seconds(calls)
        alone = place.replayed(calls) or mine
        peers = []
        for fast in (False, True):
            if theirs is None or (fast and place.rehearse):
                peers += ["", ""]
                continue
            try:
                run = torch.compile(theirs, dynamic=False) if fast else theirs
                other = [lambda b=b, run=run: run(*b) for b in buffers]
                their_own, their_host = place.seconds(other)
                their_own = place.replayed(other) or their_own
                peers += [f"{their_own / alone:.2f}", f"{their_host * 1e6:.0f}"]
            except Exception:
                traceback.print_exc()
                peers += ["not run", ""]
        figures = [f"{moved / 1e6:.1f}", f"{alone * 1e6:.1f}", f"**{moved / alone / peak:.0%}**"]
        rows.append([name, *figures, f"{mine * 1e6:.1f}", f"{host * 1e6:.0f}", *peers])
        print(rows[-1], file=sys.stderr, flush=True)

    def eager_combine(a: Any, g: Any, out: Any) -> Any:
        return torch.relu(torch.einsum("ntk,nkhw->nthw", g.mean((3, 4)), a))

    for half in (False, True):
        for n in place.sizes((512, 64, 1), (3,)):
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
    for n in place.sizes((1024, 64, 1), (2,)):
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
    header = ["kernel", "MB to move", "microseconds", "of copy bandwidth", "by launches", "host"]
    return table([*header, "eager PyTorch, times", "host", "torch.compile, times", "host"], rows)
