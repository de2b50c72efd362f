"""Names of classes: from text, from files, and lists that come with the package."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from onnxcam.errors import LabelsError, nearest
from onnxcam.files import packed

MODELS: Traversable = packed("models")
# Name: file, and classes before its own. TensorFlow's ImageNet classifiers have the background
# as class 0.
KNOWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "imagenet-1k": ("imagenet-1k.txt", ()),
    "imagenet-1001": ("imagenet-1k.txt", ("background",)),
}
_METADATA = ("names", "labels", "classes", "class_names")


def parse_labels(text: str) -> tuple[str, ...]:
    """Parse labels: one a line, or JSON or Python.

    These are a list, or an object from index to name, from name to index (Keras), or with such an
    object as ``id2label`` (Hugging Face). A byte order mark is passed over.

    Raises:
        ValueError: it looks like JSON or Python and is not, or indices do not count from 0.
    """
    text = text.removeprefix("\ufeff")
    if text.lstrip().startswith(("[", "{")):
        return _listed(_literal(text))
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def metadata_labels(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the list of labels that some exporters store in a model, ``None`` without one."""
    for key in _METADATA:
        text = metadata.get(key, "").strip()
        if text.startswith(("[", "{", "(")):
            try:
                return _listed(_literal(text))
            except ValueError:
                continue
    return None


def read_labels(source: str | Path | Iterable[str]) -> tuple[str, ...]:
    """Return labels from a file, from a list of names, or by the name of a known list.

    Raises:
        LabelsError: the file cannot be read.
    """
    if not isinstance(source, (str, Path)):
        return tuple(str(name) for name in source)
    path = Path(source)
    if not path.is_file() and str(source) in KNOWN:
        name, before = KNOWN[str(source)]
        return (*before, *parse_labels((MODELS / name).read_text("utf-8")))
    if not path.is_file():
        raise LabelsError(
            f"labels '{source}': no such file. Give a text file, one label a line, or one of "
            f"{', '.join(KNOWN)}.{nearest(str(source), KNOWN)}"
        )
    return parse_file(path, f"labels '{source}'")


def parse_file(path: Path | Traversable, what: str) -> tuple[str, ...]:
    """Return the labels in a file.

    Raises:
        LabelsError: it cannot be read; ``what`` names it.
    """
    try:
        return parse_labels(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise LabelsError(f"{what}: cannot be read ({error}).") from error


def in_order(data: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return names in the order of their indices, which are keys or values.

    Raises:
        ValueError: neither are the whole numbers from 0 on; a gap would shift the names.
    """
    if all(isinstance(v, int) for v in data.values()):
        data = {index: name for name, index in data.items()}
    try:
        names = {int(key): name for key, name in data.items()}
    except (TypeError, ValueError):
        raise ValueError("the keys are no indices, and neither are the values") from None
    if sorted(names) != list(range(len(data))):
        raise ValueError(
            f"the indices are not 0 to {len(data) - 1}, each of them once; a list, one name a "
            "line, says which is which"
        )
    return tuple(_name(names[index]) for index in range(len(names)))


def _name(item: Any) -> str:
    """Return a name; Keras stores pairs of a WordNet number and a name."""
    return str(item[-1]) if isinstance(item, list) and item else str(item)


def _listed(data: Any) -> tuple[str, ...]:
    if isinstance(data, dict):
        found = data.get("id2label", data)
        if not isinstance(found, dict):
            raise ValueError("'id2label' is no object")
        return in_order(found)
    return tuple(map(_name, data))


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError("neither JSON nor a Python list or dict") from None
