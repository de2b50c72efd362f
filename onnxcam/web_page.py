"""Write a static page that explains photographs in the browser, with a portable model inside.

The page is the files of ``onnxcam/web`` as they are. ``page.json`` beside them says what the model
takes and gives; onnxruntime-web's files are copied, so that the page needs no other server.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxcam._version import __version__
from onnxcam.errors import OutputError, PageError
from onnxcam.files import write_atomically
from onnxcam.imaging.colour import colour_table
from onnxcam.methods.registry import find_method
from onnxcam.portable import Exported, export

if TYPE_CHECKING:
    from onnxcam.surgeon.plan import Plan

RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_FOLDER = "ort"  # of the runtime, in the page's folder
_SERVED = ("ort.js", "wasm.js", "ort.wasm")  # there; many web servers do not know .mjs
_INSTALL = "npm pack onnxruntime-web && tar xzf onnxruntime-web-*.tgz"
_UNPACKED = "package/dist"
_PLACES = ("", "dist", _UNPACKED, "onnxruntime-web/dist", "node_modules/onnxruntime-web/dist")
_GIVEN = ("targets", "scores", "classes", "confidences", "boxes")  # outputs of portable models
_NOTICE = """onnxruntime-web {version}, https://github.com/microsoft/onnxruntime
Copyright (c) Microsoft Corporation. Licensed under the MIT License.
"""


def export_page(
    model: str | Path,
    out: str | Path,
    *,
    folder: str | Path,
    runtime: str | Path | None = None,
    example: str | Path | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Exported:
    """Write a portable model and a page that runs it.

    Args:
        model: the .onnx file.
        out: the portable model, of which the page gets a copy where it lies in another folder, as
            it must where the weights are in files of their own.
        folder: of the page.
        runtime: the folder of onnxruntime-web's files, or of its npm package; by default
            ``node_modules`` here or above.
        example: a photograph that the page offers.
        overwrite: replace a page.
        options: of :func:`onnxcam.export`.

    Raises:
        PageError: onnxruntime-web is not found, or the model takes no photographs.
        OnnxcamError: as :func:`onnxcam.export`; the page is there already or cannot be written.
    """
    model, folder = Path(model), Path(folder)
    parts = find_runtime(runtime)
    if (folder / "index.html").exists() and not overwrite:
        raise OutputError(f"{folder}: holds a page already. --overwrite replaces it.")
    shown = None if example is None else _read(Path(example))
    told = options.get("targets") is None and options.get("reference") is None
    if told:  # onnxruntime-web takes inputs with a default for constants
        options["target_required"] = True
    made = export(model, out, overwrite=overwrite, **options)
    try:
        data = _facts(made, model, options.get("targets"))
    except PageError:
        made.path.unlink()
        raise
    data["runtime"]["version"] = _version(parts)
    for name in (made.path.name, *made.plan.outer):
        source, aim = made.path.parent / name, folder / name
        if source.resolve() != aim.resolve():
            _put(aim, source.read_bytes())
    if example is not None and shown is not None:
        data["example"] = f"example{Path(example).suffix.lower()}"
        _put(folder / data["example"], shown)
    for name, served in zip(RUNTIME, _SERVED, strict=True):
        _put(folder / _FOLDER / served, (parts / name).read_bytes())
    notice = _NOTICE.format(version=data["runtime"]["version"])
    _put(folder / _FOLDER / "NOTICE.txt", notice.encode())
    _put(folder / "page.json", json.dumps(data, ensure_ascii=False).encode())
    # The page itself comes last: what it needs is there by then.
    for file in sorted((files("onnxcam") / "web").iterdir(), key=lambda f: f.name == "index.html"):
        _put(folder / file.name, file.read_bytes())
    return made


def find_runtime(given: str | Path | None = None) -> Path:
    """Return the folder of onnxruntime-web's files.

    Args:
        given: that folder, the one of the npm package, or one with ``node_modules``; by default the
            working directory and those above it are searched.

    Raises:
        PageError: they are not there.
    """
    here = Path.cwd()
    for start in [Path(given)] if given is not None else [here, *here.parents]:
        for place in _PLACES:
            if all((start / place / name).is_file() for name in RUNTIME):
                return start / place
    where = "no node_modules here holds" if given is None else f"{given}: does not hold"
    raise PageError(
        f"{where} onnxruntime-web's {', '.join(RUNTIME)}, which a page runs the model with. Get "
        f"them with '{_INSTALL}' and add --runtime {_UNPACKED}."
    )


def _version(runtime: Path) -> str:
    try:
        return str(json.loads((runtime.parent / "package.json").read_text("utf-8"))["version"])
    except (OSError, ValueError, KeyError):
        return ""


def _put(path: Path, data: bytes) -> None:
    write_atomically(path, lambda file: file.write(data))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PageError(f"example '{path}': cannot be read ({error.strerror}).") from error


def _facts(made: Exported, model: Path, targets: Any) -> dict[str, Any]:
    """Return the content of page.json, but for what lies beside the model.

    Args:
        made: the portable model.
        model: the original.
        targets: what is explained, where that is fixed.

    Raises:
        PageError: the model takes something else than one photograph.
    """
    plan, image = made.plan, made.plan.image
    if made.preprocess is None:
        raise PageError(
            f"{model}: '{image.name}' takes no photographs, and a page gives nothing else. "
            "'onnxcam export' without --web writes the portable model."
        )
    if plan.others:
        raise PageError(
            f"{model}: takes {', '.join(sorted(plan.others))} besides the photograph, and a page "
            "gives nothing else. 'onnxcam export' without --web writes the portable model."
        )
    if image.batch not in (None, 1):
        raise PageError(
            f"{model}: takes {image.batch} images at once, and a page gives one. Export the model "
            "with a batch of 1."
        )
    score = _class_output(plan)
    return {
        "onnxcam": __version__,
        "title": model.stem,
        "model": made.path.name,
        "external": list(plan.outer),
        "runtime": {
            kind: f"{_FOLDER}/{name}"
            for kind, name in zip(("module", "mjs", "wasm"), _SERVED, strict=True)
        },
        "image": {
            "name": made.names.get("photo", image.name),
            "photograph": "photo" in made.names,
            "dtype": image.dtype,
            "layout": image.layout,
            "channels": image.channels,
        },
        "preprocess": dataclasses.asdict(made.preprocess),
        "labels": None if made.labels is None else list(made.labels),
        "scores": score,
        "target": made.names.get("target"),
        "names": {name: made.names[name] for name in _GIVEN if name in made.names},
        "detector": None if plan.detector is None else dataclasses.asdict(plan.detector),
        "methods": [
            {"name": name, "heatmap": output, "citation": find_method(name).citation}
            for name, output in made.heatmaps.items()
        ],
        "example": None,
        "explained": {
            "score": plan.score,
            "layer": plan.layer.name if plan.layer else "",
            "targets": [str(t) for t in targets] if isinstance(targets, list) else [str(targets)],
        },
        "colours": base64.b64encode(colour_table().tobytes()).decode(),
    }


def _class_output(plan: Plan) -> dict[str, Any] | None:
    """Return which original output holds one number for each class, ``None`` where none does."""
    outputs = {t.name: t for t in plan.facts.outputs}
    found = outputs.get(plan.output or plan.score)
    if found is None or found.dtype is None or plan.classes is None or found.shape is None:
        return None
    lengths = [d for d in found.shape[1:] if isinstance(d, int)]
    if len(lengths) != len(found.shape) - 1 or math.prod(lengths) != plan.classes:
        return None
    shares = bool(plan.shares) and found.dtype.startswith("float")
    return {"output": found.name, "shares": shares}
