"""Check the kernels' arguments, with the same messages in every implementation."""

from __future__ import annotations

import math

from onnxcam.kernels.view import View

Shape = tuple[int, ...]


def combined(activations: Shape, weights: Shape, *, pixels: bool | None = None) -> Shape:
    """Return the shape ``[N, T, *S]`` of combined maps.

    Args:
        activations: the shape ``[N, K, *S]``.
        weights: the shape ``[N, T, K, *S]`` or ``[N, T, K]``.
        pixels: ``True`` accepts only the first of these two; ``None`` both.

    Raises:
        ValueError: they do not fit each other, or have more than three spatial axes.
    """
    n, k, *space = activations if len(activations) >= 2 else (-1, -1)
    t = weights[1] if len(weights) > 1 else -1
    forms = [(n, t, k, *space)] if pixels else [(n, t, k, *space), (n, t, k)]
    if len(space) not in (1, 2, 3) or weights not in forms:
        expected = "[N, T, K, *S]" if pixels else "[N, T, K] or [N, T, K, *S]"
        raise ValueError(
            f"{'gradients' if pixels else 'weights'} {weights} do not fit activations "
            f"{activations}: expected {expected} and [N, K, *S], one to three axes in S."
        )
    return (n, t, *space)


def upsampled(raw: Shape, view: View) -> Shape:
    """Return the shape ``[..., H, W]`` of maps ``[..., h, w]`` on the photograph.

    Raises:
        ValueError: fewer than two axes, or a view that shows what it does not have.
    """
    if len(raw) < 2:
        raise ValueError(f"map {raw}: expected [..., h, w].")
    for axis in (view.rows, view.columns):
        if not 0 <= axis.first <= axis.last <= axis.length:
            raise ValueError(f"visible pixels {axis.first}..{axis.last} of {axis.length}.")
        if not (math.isfinite(axis.scale) and math.isfinite(axis.offset)):
            raise ValueError(f"scale {axis.scale} and offset {axis.offset} must be finite.")
    return (*raw[:-2], *view.size)


def fused(guided: Shape, raw: Shape, view: View | None) -> View:
    """Return the view of maps ``[..., h, w]`` on gradients ``[..., C, H, W]``.

    Raises:
        ValueError: they do not fit each other.
    """
    if len(guided) < 3 or len(raw) < 2 or guided[:-3] != raw[:-2]:
        raise ValueError(
            f"map {raw} does not fit guided gradients {guided}: expected [..., h, w] and "
            "[..., C, H, W]."
        )
    size = (guided[-2], guided[-1])
    view = View.whole(size, (raw[-2], raw[-1])) if view is None else view
    if view.size != size:
        raise ValueError(f"a view of {view.size} does not fit guided gradients {guided}.")
    upsampled(raw, view)
    return view


def painted(
    photo: Shape, raw: Shape, view: View, colours: Shape, alpha: float, shade: float
) -> None:
    """Check the arguments of ``paint``.

    Raises:
        ValueError: they do not fit each other, or a weight is not within 0 and 1.
    """
    if not (0 <= alpha <= 1 and 0 <= shade <= 1):
        raise ValueError(f"alpha = {alpha} and shade = {shade} must be between 0 and 1.")
    if photo != (*view.size, 3) or len(raw) != 2 or colours != (256, 3):
        raise ValueError(
            f"photograph {photo}, map {raw} and colours {colours} do not fit a view of "
            f"{view.size}: expected [H, W, 3], [h, w] and [256, 3]."
        )
    upsampled(raw, view)
