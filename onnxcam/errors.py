"""One exception class per mistake a user can make; all derive from :class:`OnnxcamError`.

Every message names the file or the node with its operator and opset, and says the way out.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = "'onnxcam targets' lists what can be explained."


class OnnxcamError(Exception):
    """Base of everything that onnxcam raises on purpose."""


class ModelError(OnnxcamError):
    """The file is missing, is not an ONNX model, or is a broken one."""


class ContradictionError(ModelError):
    """The shapes of an operator's operands do not fit together."""


class ExternalDataError(ModelError):
    """Weights stored beside the model are missing, cut short or outside its folder."""


class NoImageInputError(OnnxcamError):
    """The model takes no image."""


class ScoreError(OnnxcamError):
    """No class score can be found, or the requested one does not fit."""


class LayerError(OnnxcamError):
    """No feature layer can be found, or the requested one does not fit."""


class TensorError(OnnxcamError):
    """The requested tensor does not exist or cannot be differentiated."""


class NoGradientError(OnnxcamError):
    """An operator between layer and score has no gradient rule."""


class EngineError(OnnxcamError):
    """The requested gradient engine is not installed, or cannot differentiate the model."""


class TargetError(OnnxcamError):
    """The requested class does not exist, or the counts do not match."""


class MethodError(OnnxcamError):
    """The requested method does not exist, or does not fit the model or the target."""


class ImageError(OnnxcamError):
    """An image cannot be read."""


class InputArrayError(OnnxcamError):
    """A ready array does not have the shape or dtype that the model takes."""


class PreprocessError(OnnxcamError):
    """Preprocessing cannot be found or is described wrongly."""


class LabelsError(OnnxcamError):
    """The file of labels cannot be read or does not fit the model."""


class AnnotationError(OnnxcamError):
    """A file of annotated boxes cannot be read, or they do not belong to the images."""


class RuntimeMissingError(OnnxcamError):
    """ONNX Runtime, or the requested provider, is not installed."""


class InferenceError(OnnxcamError):
    """The runtime refused or failed to run the model."""


class NotFiniteError(OnnxcamError):
    """The model computed NaN or infinity on this image, so there is nothing to explain."""


class WeightsError(ModelError):
    """Stored weights hold NaN or infinity."""


class OutputError(OnnxcamError):
    """The results cannot be written."""


class PictureError(OutputError):
    """This picture cannot be drawn or stored in this format."""


class PageError(OnnxcamError):
    """A page for the browser cannot be made of this model, or lacks the runtime's files."""


class KernelsError(OnnxcamError):
    """The requested kernels do not exist or cannot be loaded."""


class CompareError(OnnxcamError):
    """Two models cannot be compared, or not in this way."""


class PolicyError(OnnxcamError):
    """Thresholds are out of range, or the file that holds them cannot be read."""


class ResultsError(OnnxcamError):
    """Results or a recorded run cannot be read, or belong to something else."""


@contextmanager
def naming(what: Path | str, *kinds: type[OnnxcamError], advice: str = "") -> Iterator[None]:
    """Put a name, often a file's, before the message of such errors, and advice after it."""
    try:
        yield
    except kinds as error:
        after = f" {advice}" if advice else ""
        name = what.name if isinstance(what, Path) else what
        raise type(error)(f"{name}: {error}{after}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of what the innermost cause of an error says."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def quoted(text: str) -> str:
    """Return a name in quotes, as a shell takes it."""
    return shlex.quote(text) if "'" in text else f"'{text}'"


def nearest(name: str, known: Iterable[str], count: int = 5) -> str:
    """Return ``" Nearest: a, b"`` for the known names most like ``name``, or ``""``."""
    names = list(known)
    lowered = {n.lower(): n for n in reversed(names)}
    word = name.lower()
    inside = [n for n in names if word and word in n.lower()]
    alike = [lowered[m] for m in difflib.get_close_matches(word, lowered, count, 0.5)]
    found = list(dict.fromkeys(alike + inside))[:count]
    return f" Nearest: {', '.join(found)}." if found else ""
