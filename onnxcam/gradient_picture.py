"""A picture of a written gradient on one photograph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from onnxcam.errors import NotFiniteError, PictureError
from onnxcam.explanation import Explanation
from onnxcam.gradient_run import RANDOM, not_finite, run_gradient, try_once
from onnxcam.notes import note_at_input


def gradient_picture(
    made: onnx.ModelProto,
    path: Path,
    of: str,
    to: Sequence[str],
    given: str,
    method: str = "saliency",
) -> Explanation:
    """Return the gradient of a tensor's largest element with respect to the image.

    Args:
        made: the model with gradients, as :func:`onnxcam.add_gradients` returns it.
        path: the file of the model without.
        of: the differentiated tensor.
        to: the tensors that it was differentiated with respect to, the image input among them.
        given: a photograph, or a .npy file of the image input as the model takes it.
        method: the name of the method that it amounts to, which decides the picture.

    Raises:
        PictureError: the gradient is not one of the image input.
        NotFiniteError: the gradient holds NaN or infinity.
        OnnxcamError: the model cannot be run, or the image does not fit.
    """
    trial = try_once(path, of, to, given, np.random.default_rng(0))
    image = trial.image
    if image is None:
        raise PictureError(f"no picture of random numbers: give a photograph, not '{RANDOM}'.")
    if (entry := image.varied) not in to:
        raise PictureError(f"no picture without the gradient of the image: add --to '{entry}'.")
    value = trial.values[of]
    place = np.unravel_index(int(value.argmax()), value.shape)
    cotangent = np.zeros(value.shape)
    cotangent[place] = 1
    name, gradient = list(run_gradient(made, trial, cotangent).items())[to.index(entry)]
    if problem := not_finite({of: value, name: gradient}):
        raise NotFiniteError(f"{problem}.")
    signed = image.takes.channels_first(gradient)[0].astype(np.float32)
    largest, reach = (float(np.abs(a, dtype=np.float64).max()) for a in (value, image.tensor))
    return Explanation(
        method=method,
        space="input",
        layer=entry,
        score_name=of,
        target=None,
        element=f"{of}[{','.join(str(i) for i in place[1:])}]",
        label=None,
        score=float(value[place]),
        rank=None,
        signed=np.ascontiguousarray(signed),
        source=image.item.source,
        photo=image.item.photo,
        geometry=image.item.geometry,
        given=image.item.given,
        note=note_at_input(signed, largest, reach, proportional=True),
        bgr=image.bgr,
    )
