"""What a run is fed besides its targets: images, and the model's other inputs for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.surgeon.plan import Plan, of_images

Array = NDArray[Any]


def feeds_of(
    plan: Plan, tensor: Array, others: Mapping[str, Array], scales: Sequence[tuple[float, float]]
) -> dict[str, Array]:
    """Return what is fed for images: as many as the model takes, and its other inputs for each.

    Inputs that say how large an image is, or how it was scaled, are fed from the images.

    Args:
        plan: what is known of the model.
        tensor: the images.
        others: its other inputs, with a batch axis of 1.
        scales: pixels of the input for one of each photograph, along rows and columns.
    """
    image, full = plan.image, filled(tensor, plan.image.batch)
    fed = {n: np.repeat(v, len(full), 0) for n, v in others.items()}
    for facts in plan.facts.inputs:
        kind = "" if facts.name in fed else of_images(facts)
        if kind:
            size = dict(zip(image.axes, image.channels_first(full).shape[2:], strict=True))
            own = scales if kind == "scale" else [[size[axis] for axis in kind]] * len(scales)
            fed[facts.name] = filled(np.array(own, facts.dtype), len(full))
    return {image.name: full, **fed}


def filled(images: Array, batch: int | None) -> Array:
    """Repeat the last image where the model takes no fewer than ``batch``."""
    missing = (batch or len(images)) - len(images)
    return np.concatenate([images, *[images[-1:]] * missing]) if missing > 0 else images
