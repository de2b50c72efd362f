"""Write a portable model: the explanation inside, in standard operators, for any runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcam._version import __version__
from onnxcam.aims import aim_of
from onnxcam.batch import Wanted
from onnxcam.errors import (
    MethodError,
    OutputError,
    PreprocessError,
    TargetError,
)
from onnxcam.explainer import Explainer
from onnxcam.files import check_writable
from onnxcam.imaging.colour import colour_table
from onnxcam.imaging.preprocess import Geometry, Preprocess
from onnxcam.imaging.style import USUAL
from onnxcam.inputs.images import ImageLike
from onnxcam.inputs.others import OtherInput
from onnxcam.methods.base import Method
from onnxcam.methods.registry import methods as known_methods
from onnxcam.model.half import in_half
from onnxcam.model.lower import lower
from onnxcam.model.write import write_model
from onnxcam.surgeon.plan import Plan
from onnxcam.surgeon.portable.write import Asked, Paint, Portable, portable
from onnxcam.targets.classes import ClassTarget, Targets
from onnxcam.targets.pixels import Masked

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the portable model.
        plan: what was chosen in the original: score, layer, image input.
        names: what the input ``target`` and the outputs ``targets``, ``scores``, ``classes``,
            ``confidences`` and ``boxes`` are called; those that there are.
        heatmaps: the output that holds each method's maps, ``[N, T, H, W]``.
        overlays: the output that holds each method's pictures, where they were asked for.
        opset: of the default domain.
        ir_version: of the file.
        operators: how many nodes the original has, as it is read, and how many were added.
        size: of the original file and of this one, in bytes, without external weights.
        preprocess: how photographs are prepared, ``None`` where the model takes none.
        labels: names of the classes, or ``None``.
    """

    path: Path
    plan: Plan
    names: dict[str, str]
    heatmaps: dict[str, str]
    overlays: dict[str, str]
    opset: int
    ir_version: int
    operators: tuple[int, int]
    size: tuple[int, int]
    preprocess: Preprocess | None
    labels: tuple[str, ...] | None


def export(
    model: str | Path | bytes | ModelProto,
    out: str | Path,
    *,
    targets: Targets = None,
    target_required: bool = False,
    inputs: Mapping[str, OtherInput] | None = None,
    reference: ImageLike | None = None,
    method: str | Method | Sequence[str | Method] = "auto",
    raw: bool = False,
    with_preprocessing: bool = False,
    overlay: bool = False,
    fp16: bool = False,
    batch: int | None = None,
    opset: int | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Exported:
    """Write a model that gives its prediction and the explanation of it.

    The file has the original inputs and outputs, and in standard operators, for any runtime:

    * ``heatmap``, float32 ``[N, T, H, W]`` in 0..1, what :attr:`Explanation.heatmap` is for a ready
      array; of further methods ``heatmap:METHOD``;
    * ``targets``, int64 ``[N, T]``, the classes that are explained, and ``scores``, float32
      ``[N, T]``, their scores, before Softmax or Sigmoid;
    * the input ``target``, int64 ``[N, T]`` or ``[1, T]``, -1 for the predicted class, which is its
      default; with ``targets`` there is no such input.

    Of a detector the targets are rows of its output, -1 the surest, and outputs tell what these
    are: ``classes``, int64 ``[N, A]``, ``confidences``, float32 ``[N, A]``, and ``boxes``, float32
    ``[N, A, 4]``: left, top, right, bottom in pixels of the input, 0 where they are not known.
    Boxes that overlap are left in.

    A name that the model has already keeps the prefix ``onnxcam:``. External weights stay in their
    files, beside which ``out`` must lie. The metadata entries ``onnxcam.*`` say what is explained.

    Args:
        model: the .onnx file, its content, or an ``onnx.ModelProto``.
        out: the file to write.
        targets: what is explained, fixed in the file: as :meth:`Explainer.explain` takes it.
        target_required: whether ``target`` has no default: OpenVINO, for one, takes an input with
            a default for a constant.
        inputs: other inputs of the model that become constants, as :meth:`Explainer.explain` takes
            them; those that are not given stay inputs.
        reference: an image: explain how similar the model's embedding is to this one's.
        method: one or several that write their map into the graph.
        raw: give maps at the layer's own size, rectified, not scaled.
        with_preprocessing: take a photograph, the input ``photo``, uint8 ``[H, W, 3]`` of any size,
            in place of the image input, and prepare it as the explainer does. Heatmaps are then on
            the photograph.
        overlay: give the painted photograph too, ``overlay``, uint8 ``[T, H, W, 3]``; it needs
            ``with_preprocessing``.
        fp16: store weights and compute in float16; what finishes maps, inputs and outputs stay in
            float32.
        batch: fix how many images a run takes. Compilers for fixed shapes ask for it; the gradient
            of shapes that only a run knows needs operators that some of them do not take.
        opset: the highest opset that the runtime loads; the file has the lowest that says the same,
            which a higher one is refused for.
        overwrite: replace a file.
        options: of :class:`Explainer`: ``layer``, ``score``, ``preprocess``, ``labels``, ``grid``.

    Raises:
        OnnxcamError: as :class:`Explainer`; a method or target that no graph can hold; the file is
            there already or cannot be written.
    """
    out = Path(out)
    if out.is_dir():
        raise OutputError(f"{out}: is a folder. Name a file in it: -o '{out / 'model.cam.onnx'}'.")
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: is there already. --overwrite replaces it.")
    check_writable(out)
    _check_methods(method)
    explainer = Explainer(model, method=method, **{"providers": "cpu", **options})
    fixed = explainer.others.some(inputs or {})
    wanted: list[Wanted] | None = None if targets is None else explainer.resolve(targets)
    if reference is not None:
        if targets is not None:
            raise TargetError("a reference is a target of its own: leave out the others.")
        wanted = [explainer.similar_to(reference, inputs=inputs)]
    if wanted is None:
        explainer.resolve(None)  # there are classes, or boxes
    elif target_required:
        raise TargetError("targets are fixed or an input, not both.")
    recipe = _recipe(explainer) if with_preprocessing else None
    geometry = _geometry_of(wanted, explainer.plan, recipe)
    space = [d for d in explainer.plan.image.space if d is not None]
    known = len(space) == len(explainer.plan.image.space)
    whole = Geometry.identity(*space) if known else None
    kind, aim = aim_of(wanted, target_required, explainer.plan, geometry, whole)
    if overlay:
        _check_overlay(explainer.methods, with_preprocessing)
    written = {m.label: m for m in explainer.methods}
    made = portable(
        explainer.path,
        explainer._runner.request(written, kind),
        Asked(
            aim,
            frozenset(n for n, m in written.items() if m.proportional),
            raw,
            recipe=recipe,
            photo=None if recipe is None or geometry is None else geometry.size,
            batch=None if batch is None else (explainer.plan.image.name, batch),
            inputs=(fixed, explainer.plan.image.name),
            paint=Paint(colour_table(USUAL.colours), USUAL.alpha, USUAL.shade) if overlay else None,
        ),
    )
    if fp16:
        in_half(made.model, made.finishing, explainer.path)
    lower(made.model, explainer.path, opset)
    _describe(made, explainer, wanted, raw)
    write_model(made.model, out, explainer.path)
    return Exported(
        path=out,
        plan=made.plan,
        names=made.names,
        heatmaps=made.heatmaps,
        overlays=made.overlays,
        opset=next(e.version for e in made.model.opset_import if e.domain == ""),
        ir_version=made.model.ir_version,
        operators=made.operators,
        size=(explainer.path.stat().st_size, out.stat().st_size),
        preprocess=explainer.preprocess,
        labels=None if explainer.labels is None else tuple(explainer.labels),
    )


def _recipe(explainer: Explainer) -> Preprocess:
    """Return how photographs are prepared."""
    if explainer.preprocess is None:
        raise PreprocessError(f"{explainer.path}: takes no photographs.")
    return explainer.preprocess


def _geometry_of(
    wanted: Sequence[Wanted] | None, plan: Plan, recipe: Preprocess | None
) -> Geometry | None:
    """Return where the images of masks lie in the input, ``None`` without masks.

    Args:
        wanted: what is explained.
        plan: what was chosen in the model.
        recipe: how photographs are prepared, where the model is to take them.

    Raises:
        TargetError: masks of several sizes, or of another size than the input.
    """
    masks = [t for t in wanted or () if isinstance(t, Masked)]
    sizes = list(dict.fromkeys(np.shape(t.mask) for t in masks))
    if not sizes:
        return None
    if recipe is not None:
        if len(sizes) > 1:
            raise TargetError(
                f"the masks have the sizes {' and '.join(map(_sides, sizes))}, and the photograph "
                "has one. Write a file for each."
            )
        photo = np.zeros((*sizes[0], 3), np.uint8)
        return recipe.apply(photo, "NCHW", "uint8")[1]
    space = plan.image.space
    known = tuple(d for d in space if d is not None)
    for mask, size in ((t, np.shape(t.mask)) for t in masks):
        if len(known) < len(space):
            raise TargetError(
                f"target '{mask}': the input takes images of any size, and a mask is of one. "
                f"'onnxcam explain' takes it for one photograph: -t '{mask}'."
            )
        if size != known:
            raise TargetError(
                f"target '{mask}': without --with-preprocessing a mask is as large as the input, "
                f"{_sides(known)}, and this is {_sides(size)} (height x width)."
            )
    return Geometry.identity(*known)


def _sides(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _check_overlay(methods: Sequence[Method], prepared: bool) -> None:
    """Refuse pictures of what cannot be painted."""
    if not prepared:
        raise PreprocessError("--overlay paints a photograph, so it needs --with-preprocessing.")
    for method in methods:
        if method.space == "input":
            raise MethodError(
                f"method '{method.name}' explains the input, whose picture is no heatmap over a "
                "photograph. Leave out --overlay, or explain a layer: --method grad-cam."
            )


def _check_methods(wanted: str | Method | Sequence[str | Method]) -> None:
    """Refuse methods that a graph cannot hold."""
    from onnxcam.methods.registry import find_method

    if wanted == "auto":
        return
    for one in [wanted] if isinstance(wanted, (str, Method)) else wanted:
        method = find_method(one)
        if not _is_held(method):
            why = "drives many runs" if method.drive else "is finished outside the graph"
            others = ", ".join(n for n, m in known_methods().items() if _is_held(m))
            raise MethodError(
                f"method '{method.name}' {why}, so no file can hold it. These go: {others}."
            )


def _is_held(method: Method) -> bool:
    return method.drive is None and method.finish is None and not method.joins


def _named(target: Wanted) -> str:
    """Return what a target is called."""
    if isinstance(target, ClassTarget):
        return f"rank:{(target.rank or 0) + 1}" if target.index is None else str(target.index)
    return str(target)


def _describe(
    made: Portable, explainer: Explainer, wanted: Sequence[Wanted] | None, raw: bool
) -> None:
    """Say in the file's metadata what was explained, and by which version."""
    plan = made.plan
    said = {
        "version": __version__,
        "heatmaps": json.dumps(made.heatmaps),
        "names": json.dumps(made.names),
        "size": "layer" if raw else "input",
        "score": plan.score,
        "layer": "" if plan.layer is None else plan.layer.name,
        "image": plan.image.name,
        "overlays": json.dumps(made.overlays),
        "preprocess": json.dumps(asdict(explainer.preprocess) if explainer.preprocess else None),
        "targets": json.dumps(None if wanted is None else list(map(_named, wanted))),
    }
    kept = [e for e in made.model.metadata_props if e.key.removeprefix("onnxcam.") not in said]
    del made.model.metadata_props[:]
    made.model.metadata_props.extend(kept)
    for name, value in said.items():
        entry = made.model.metadata_props.add()
        entry.key, entry.value = f"onnxcam.{name}", value
