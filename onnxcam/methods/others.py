"""Maps that take no gradient, or another rule than the derivative."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import MethodError
from onnxcam.kernels import kernels_for
from onnxcam.methods.base import Arrays, Runs, chunks
from onnxcam.methods.registry import register

if TYPE_CHECKING:
    from onnxcam.graph.terms import Term
    from onnxcam.surgeon.site import Site


@register("excitation-bp", "Zhang et al. 2016, eq. 4-6", needs="maps that are not negative")
def excitation_bp(s: Site) -> Term:
    """sum_k P_k, the marginal winning probability of each unit."""
    return s.sum_channels(s.gradient(s.activations, "excitation"))


@register(
    "c-mwp", "Zhang et al. 2016, section 3.3", needs="maps that are not negative", cost="1 to 2"
)
def c_mwp(s: Site) -> Term:
    """sum_k P_k less that of the class with negated weights: excitation-bp, contrastive."""
    own = s.gradient(s.activations, "excitation")
    return s.sum_channels(own - s.gradient(s.activations, "excitation-dual"))


def principal(arrays: Arrays) -> NDArray[np.float64]:
    """Project maps ``[N, T, K, *S]`` on their first principal component over positions.

    Its sign is that with which the result goes up where the mean over channels does.
    """
    [maps] = arrays.values()
    return np.stack([[_component(a.astype(np.float64)) for a in targets] for targets in maps])


def _component(a: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = a.reshape(len(a), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    channels, positions = centred.shape
    if positions < channels:  # the smaller of two matrices with the same values other than 0
        value, vector = leading(centred.T @ centred)
        projected = np.sqrt(max(value, 0)) * vector
    else:
        projected = leading(centred @ centred.T)[1] @ centred
    return _upright(projected, centred).reshape(a.shape[1:])


def _upright(projected: NDArray[np.float64], centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a component of places with the sign of the mean over channels."""
    return -projected if projected @ centred.mean(axis=0) < 0 else projected


def leading(m: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the largest eigenvalue of a symmetric matrix without negative ones, and its vector.

    Powers of the matrix find it in a fraction of the time of all eigenvectors; where two values
    are too close for that, all are computed.
    """
    size = float(np.abs(m).max())
    if size > 0:
        power = m / size
        for _ in range(5):
            power = power @ power
            power /= np.abs(power).max()
        vector = power[:, np.argmax(np.diagonal(power))]
        for _ in range(6):  # each is 320 steps of the power iteration
            for _ in range(10):
                vector = power @ vector
                vector /= np.linalg.norm(vector)
            moved = m @ vector
            value = float(vector @ moved)
            if np.linalg.norm(moved - value * vector) <= 1e-10 * value:
                return value, vector
    values, vectors = np.linalg.eigh(m)  # ascending
    return float(values[-1]), vectors[:, -1]


@register("eigen-cam", "Muhammad and Yeasin 2020, eq. 4-6", finish=principal)
def eigen_cam(s: Site) -> dict[str, Term]:
    """v^T A, with v the first principal component of the activations."""
    return {"activations": s.per_target(s.activations)}


_PLACES = 4096  # of a layer, so that the kernel's matrix and its eigenvectors take seconds


def _kernel_principal(arrays: Arrays, gamma: float = 0.0) -> NDArray[np.float64]:
    """Project places of maps ``[N, 1, K, *S]`` on the first component of their kernel.

    Its sign is that of :func:`principal`.

    Raises:
        MethodError: there are too many places.
    """
    [maps] = arrays.values()
    places = int(np.prod(maps.shape[3:]))
    if places > _PLACES:
        raise MethodError(
            f"method 'kpca-cam' compares all places of its layer with each other: at most "
            f"{_PLACES}, and the layer has {places}. --layer auto is the last one; eigen-cam takes "
            "any."
        )
    return np.stack([[_kernel_component(a.astype(np.float64), gamma) for a in t] for t in maps])


def _kernel_component(a: NDArray[np.float64], gamma: float) -> NDArray[np.float64]:
    flat = a.reshape(len(a), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    kernel = np.tanh((gamma or 1 / len(a)) * (flat.T @ flat) + 1)
    mean = kernel.mean(axis=0)  # of rows and of columns: the kernel is symmetric
    values, vectors = np.linalg.eigh(kernel - mean - mean[:, None] + mean.mean())
    return _upright(np.sqrt(max(values[-1], 0)) * vectors[:, -1], flat).reshape(a.shape[1:])


@register("kpca-cam", "Karmani et al. 2024", finish=_kernel_principal)
def kpca_cam(s: Site) -> dict[str, Term]:
    """The first kernel principal component of places, tanh(gamma a.b + 1); gamma=0: 1/K."""
    return {"activations": s.per_target(s.activations)}


@register("fem", "Fuad et al. 2020")
def fem(s: Site, k: float = 2.0) -> Term:
    """sum_k mean_S(A_k) (A_k > mean_S(A_k) + k std_S(A_k)), the same for every target."""
    from onnxcam.graph.terms import sqrt, where

    a = s.activations
    mean = s.mean_space(a, keepdims=True)
    away = a - mean
    deviation = sqrt(s.mean_space(away * away, keepdims=True))
    return s.per_target(s.sum_channels(where(away > deviation * k, mean, 0.0)))


@register("eigen-grad-cam", "pytorch-grad-cam; after Muhammad and Yeasin 2020", finish=principal)
def eigen_grad_cam(s: Site) -> dict[str, Term]:
    """v^T (G A), with v the first principal component of gradient times activations."""
    return {"products": s.gradient() * s.activations}


def _random(arrays: Arrays, seed: int = 0) -> NDArray[np.float32]:
    activations = arrays["activations"]
    channels = activations.shape[2]
    weights = np.random.default_rng(int(seed)).uniform(-1, 1, size=(channels,))
    shape = (len(activations), 1, channels)
    single = np.ascontiguousarray(activations[:, 0], np.float32)
    given = np.broadcast_to(weights.astype(np.float32), shape)
    return kernels_for(single).combine_weighted(single, np.ascontiguousarray(given))


@register("random-cam", "the control: weights drawn at random", finish=_random)
def random_cam(s: Site) -> dict[str, Term]:
    """sum_k w_k A_k, w uniform in -1..1, the same for all images and targets."""
    return {"activations": s.per_target(s.activations)}


@register(
    "ablation-cam",
    "Desai and Ramaswamy 2020, eq. 4-5",
    cost="1, and a part of 1 for each channel",
    drives=True,
)
def ablation_cam(runs: Runs) -> NDArray[np.float32]:
    """sum_k w_k A_k, w = (y - y without channel k) / y."""
    a, y, found = runs.activations, runs.value, []
    for start, stop in chunks(len(a), runs.batch):
        without = np.repeat(a[None], stop - start, axis=0)
        without[np.arange(stop - start), np.arange(start, stop)] = 0
        found.append(runs.tail(without))
    drops = (y - np.concatenate(found)) / np.where(y == 0, 1, y)  # [K, T]
    weights = np.ascontiguousarray(drops.T[None], np.float32)
    maps = kernels_for(a).combine_weighted(np.ascontiguousarray(a[None], np.float32), weights)
    return np.asarray(maps[0])
