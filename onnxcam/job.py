"""One kind of target on many images: batches, runs, explanations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.batch import Batch, Said, Wanted, rows_of
from onnxcam.checks import check_axes, check_finite, check_linear
from onnxcam.errors import InferenceError, LayerError, TargetError, naming
from onnxcam.explanation import Explanation
from onnxcam.feeds import feeds_of
from onnxcam.finishing import finish
from onnxcam.image_runs import ImageRuns, reading
from onnxcam.imaging.preprocess import Geometry, Preprocess
from onnxcam.inputs.images import ImageLike, Inputs, Item
from onnxcam.layers import SCALE, Group, Layers, channels_of, grouped
from onnxcam.methods.base import Method
from onnxcam.notes import note_at_input, note_on
from onnxcam.runner import BATCH, Program, Runner
from onnxcam.runtime.batching import ahead
from onnxcam.runtime.blas import on_one_thread
from onnxcam.surgeon.plan import CLASSES, ELEMENTS, RANKS, TARGETS, VALUES, WEIGHTS, part_name
from onnxcam.targets.classes import PREDICTED, ClassTarget, arrange, probability
from onnxcam.targets.detections import compared
from onnxcam.targets.elements import ElementTarget, indices
from onnxcam.targets.weighted import stacked


@dataclass(frozen=True)
class Setup:
    """What every run of an explainer shares."""

    runner: Runner
    methods: Sequence[Method]
    inputs: Inputs
    preprocess: Preprocess | None
    labels: Sequence[str] | None
    layers: Layers


class Job:
    """Explains one kind of target."""

    def __init__(
        self, setup: Setup, element: str | None, others: Mapping[str, NDArray[Any]]
    ) -> None:
        """Take what is shared, the tensor whose elements are explained, and other inputs."""
        self.setup, self.element, self.others = setup, element, others
        self.program = setup.runner.program(setup.methods, element, kernels=True)
        self.plan, self.path = self.program.plan, setup.runner.path
        layers, found = setup.layers, len(self.plan.layers)
        with naming(self.path, LayerError):
            self.groups = grouped(layers, setup.methods, found, scales=self.plan.scales)

    def explain(
        self,
        images: Sequence[ImageLike] | NDArray[Any],
        targets: Sequence[Sequence[Wanted]],
    ) -> Iterator[list[Explanation]]:
        """Yield for each image its explanations, in the order of layers, methods, targets."""
        size, device = self.size, self.program.session.device
        starts = range(0, len(images), size)
        if isinstance(images, np.ndarray):
            item = self.setup.inputs.ready(images)

            def ready(start: int) -> list[Batch]:
                part = images[start : start + size]
                wanted = targets[start : start + size]
                return [self._batch(np.asarray(part), [item] * len(part), wanted)]

            # On the CPU nothing is left to prepare that would be worth a thread.
            batches = map(ready, starts) if device is None else ahead(starts, ready)
        else:

            def prepared(start: int) -> list[Batch]:
                some = images[start : start + size]
                pairs = (self.setup.inputs.prepare(i, self.setup.preprocess) for i in some)
                tensors, items = zip(*pairs, strict=True)
                return self.batches(tensors, items, targets[start : start + size])

            # The next batch is decoded (and uploaded) while the present one runs.
            batches = ahead(starts, prepared)
        for some in batches:
            for batch in some:
                yield from self.run(batch)[0]

    @property
    def size(self) -> int:
        """How many images one run takes."""
        return 1 if self.plan.single else self.plan.image.batch or BATCH

    def batches(
        self,
        tensors: Sequence[NDArray[Any]],
        items: Sequence[Item],
        targets: Sequence[Sequence[Wanted]],
    ) -> list[Batch]:
        """Return the runs of at most :attr:`size` images, ``[1, ...]`` as the model takes them."""
        if len({t.shape for t in tensors}) > 1:  # a dynamic size: one at a time
            singles = zip(tensors, items, targets, strict=True)
            return [self._batch(tensor, [item], [wanted]) for tensor, item, wanted in singles]
        whole = np.concatenate(tensors) if len(tensors) > 1 else tensors[0]
        return [self._batch(whole, items, targets)]

    def _batch(
        self,
        tensor: NDArray[Any],
        items: Sequence[Item],
        targets: Sequence[Sequence[Wanted]],
    ) -> Batch:
        """Make one run's inputs, the images already on the session's device."""
        count = len(items)
        scales = [i.scale for i in items]
        feeds: dict[str, Any] = feeds_of(self.plan, tensor, self.others, scales)
        tensor = feeds[self.plan.image.name]  # filled up where the model takes no fewer
        feeds[self.plan.image.name] = self.program.session.upload(tensor)
        rows, told = [[0]] * count, None
        if self.element is not None:
            assert self.plan.element is not None
            listed = list(dict.fromkeys(t for wanted in targets for t in wanted))
            rows = [[listed.index(t) for t in wanted] for wanted in targets]
            sums = [t for t in listed if not isinstance(t, ClassTarget | ElementTarget)]
            if sums:
                check_linear(self.setup.methods, sums)
                places = [item.geometry for item in items]
                told = stacked(sums, self._read(feeds, len(tensor)), targets, places)
                feeds[WEIGHTS] = told.weights
            else:
                elements = [t for t in listed if isinstance(t, ElementTarget)]
                feeds[ELEMENTS] = indices(elements, (self.plan.element.shape or ())[1:])
        elif any(list(wanted) != [PREDICTED] for wanted in targets):
            classes = [[t for t in w if isinstance(t, ClassTarget)] for w in targets]
            codes, ranks, rows = arrange(classes)
            if missing := len(tensor) - count:
                codes = np.concatenate([codes, *[codes[:, -1:]] * missing], axis=1)
            feeds |= {TARGETS: codes, RANKS: ranks}
        return Batch(tensor, feeds, len(tensor), items, targets, rows, told)

    def read(self, image: ImageLike) -> NDArray[Any]:
        """Return the tensor that is weighted, of one image, ``[*P]``."""
        tensor, item = self.setup.inputs.prepare(image, self.setup.preprocess)
        feeds = feeds_of(self.plan, tensor, self.others, [item.scale])
        return np.asarray(self._read(feeds, len(feeds[self.plan.image.name]))[0])

    def _read(self, feeds: Mapping[str, Any], count: int) -> NDArray[Any]:
        """Return the tensor that is weighted, ``[N, *P]``, of a forward pass alone."""
        assert self.plan.element is not None
        name, rank = self.plan.element.name, len(self.plan.element.shape or ())
        method = reading(name)
        program = self.setup.runner.program([method], self.element)
        nothing = np.zeros((1,) * (rank + 1), np.dtype(self.plan.element.dtype))
        [output] = program.names(method.label)
        values = np.asarray(program.run({**feeds, WEIGHTS: nothing}, [output])[output])
        values = values[None] if self.plan.single else values
        if len(values) != count:
            raise TargetError(
                f"{self.path}: '{name}' has shape {list(values.shape)} for {count} image(s): its "
                "first axis is not the images."
            )
        return values

    def run(self, batch: Batch) -> tuple[list[list[Explanation]], NDArray[Any]]:
        """Run one batch; return each image's explanations, and its scores or explained numbers."""
        on_host = any(m.finish or m.drive for m in self.setup.methods)
        with on_one_thread() if on_host else nullcontext():
            return self._run(batch)

    def _run(self, batch: Batch) -> tuple[list[list[Explanation]], NDArray[Any]]:
        values = self._values(batch.feeds)
        if any(m.space == "layer" or "layer" in m.needs for m in self.setup.methods):
            with naming(self.path, LayerError):
                self.program.verify(values, self._size(batch))
        maps = {}
        for m in self.setup.methods:
            places = self._places(m)
            once = m.drive is not None and m.space == "input"  # the same at each layer
            found = [self._maps(m, p, values, batch) for p in places[: 1 if once else None]]
            maps[m.label] = dict(zip(places, found * (len(places) if once else 1), strict=True))
        explained = []
        for n in range(len(batch.items)):
            mine: list[Explanation] = []
            for group, method in self.groups:
                at = maps[method.label]
                for t, target in zip(batch.rows[n], batch.targets[n], strict=True):
                    signed = [at[p][0][n][t] for p in group.places]
                    one = self._explanation(method, group, signed, values, batch, n, t, target)
                    raw = at[group.places[0]][1] if not group.how else None
                    if raw is not None and raw.ndim == 4:
                        one = replace(one, on_device=raw[n, t])
                    mine.append(one)
            explained.append(mine)
        return explained, values[VALUES if self.element is not None else self.plan.scores]

    def _places(self, method: Method) -> list[int]:
        """Return at which layers a method's maps are wanted."""
        return sorted({p for g, m in self.groups if m is method for p in g.places})

    def _size(self, batch: Batch) -> tuple[int, ...]:
        """Return the spatial lengths of a run's images."""
        return tuple(self.plan.image.channels_first(batch.tensor[:1]).shape[2:])

    def _program_of(self, feeds: Mapping[str, Any]) -> Program:
        """Return the program of one target, or of several."""
        if rows_of(feeds) == 1:
            return self.program
        methods, runner = self.setup.methods, self.setup.runner
        return runner.program(methods, self.element, kernels=True, several=True)

    def _values(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Run the model: all targets at once, or one after another where the engine needs it."""
        written = [m for m in self.setup.methods if m.drive is None]
        record = [VALUES] if self.element is not None else [self.plan.scores, CLASSES]
        record += [c.output for c in self.plan.checks]
        parts = [(m.label, p) for m in written for p in self._places(m)]
        outputs = [*record, *(o for part in parts for o in self.program.names(*part))]
        if self.setup.runner.engine == "rules" or TARGETS not in feeds:
            flags = [self.plan.part(*part).outputs.get("negative", "") for part in parts]
            try:
                return self._program_of(feeds).run_there(feeds, outputs, [*record, *flags])
            except InferenceError as error:
                if ELEMENTS not in feeds:
                    raise
                raise TargetError(
                    f"{self.path}: the run failed. Is the target '{self.element}[...]' out of "
                    f"range? Some of its lengths only the run knows. ({error})"
                ) from error
        runs = [
            self.program.run({**feeds, TARGETS: row[None], RANKS: rank[None]}, outputs)
            for row, rank in zip(feeds[TARGETS], feeds[RANKS], strict=True)
        ]
        images_first = {
            facts.outputs[key]
            for facts in (self.plan.part(*part) for part in parts)
            for key in facts.images_first
        }
        axes = {o: 1 if o in images_first else 0 for o in outputs}
        joined = {o: np.concatenate([r[o] for r in runs], axis) for o, axis in axes.items()}
        return {**joined, **{n: runs[0][n] for n in record if n != CLASSES}}

    def _maps(
        self, method: Method, place: int, values: dict[str, Any], batch: Batch
    ) -> tuple[Sequence[NDArray[np.float32]], Any]:
        """Return maps at a layer, ``[N, T, ...]``, and the raw ones if they are on the GPU."""
        maps: Sequence[NDArray[Any]]
        raw = None
        if method.drive is not None:
            maps = [self._driven(method, place, values, batch, n) for n in range(len(batch.items))]
        else:
            facts, traffic = self.plan.part(method.label, place), self.program.session.traffic
            found = finish(method, facts, values, traffic, self.plan.image)
            maps, raw = list(found.signed), found.raw
            if len(maps) != batch.size:
                raise LayerError(
                    f"{self.path}: {batch.size} image(s) went in, but the maps of "
                    f"'{method.name}' have shape {list(np.shape(maps))}: in the model, the first "
                    "axis of every tensor must be the images; a method of your own returns "
                    "[T, N, ...], or [1, N, ...] where targets do not matter."
                )
        if method.space == "layer":
            layer = self.plan.layers[place] if self.plan.layers else None
            check_axes(method, layer, self.plan.image, np.shape(maps[0])[1:], self.path)
        scores = values[VALUES if self.element is not None else self.plan.scores]
        check_finite(scores, maps, method, self.path)
        count = rows_of(batch.feeds)
        # What is the same for every target has an axis of 1 there.
        signed = [np.broadcast_to(np.asarray(m, np.float32), (count, *m.shape[1:])) for m in maps]
        return signed, raw

    def _said(
        self, values: dict[str, NDArray[Any]], batch: Batch, n: int, t: int, target: Wanted
    ) -> Said:
        """Return what is explained, and the number that it is."""
        if not isinstance(target, ClassTarget):
            if batch.sums is None:
                return Said(element=str(target), score=float(values[VALUES][n, t]))
            sums, place = batch.sums, (t, n)
            number = float(sums.numbers[place])
            return Said(element=sums.said[t][n], score=number, detected=sums.detected[t][n])
        scores, index = values[self.plan.scores][n], int(values[CLASSES][t, n])
        if index >= len(scores):
            raise TargetError(f"{self.path}: a target is out of range of {len(scores)} classes.")
        score = float(scores[index])
        labels = self.setup.labels
        label = labels[index] if labels and index < len(labels) else None
        if self.plan.classes == 1 and not labels:
            label = self.plan.output  # one number an image has no class
        known = target.rank
        rank = known + 1 if known is not None else int((scores > scores[index]).sum()) + 1
        share = probability(self.plan.shares, scores, index)
        return Said(index, None, label, score, rank, probability=share)

    def _item(self, batch: Batch, n: int, signed: NDArray[Any], method: Method) -> Item:
        """Return what a map is shown on: a photograph, or the numbers that were given."""
        item = batch.items[n]
        if method.space == "layer" and signed.ndim != len(item.geometry.placements):
            return item._replace(
                geometry=Geometry.identity(*signed.shape), given=None
            )  # a spectrum
        if item.given is None and item.photo is None:
            given = self.plan.image.channels_first(batch.tensor[n : n + 1])[0]
            return item._replace(given=given)
        return item

    def _driven(
        self, method: Method, place: int, values: dict[str, Any], batch: Batch, n: int
    ) -> NDArray[Any]:
        """Drive many runs of one image, its targets being those of the clean run."""
        if self.element is not None:
            targets = {k: batch.feeds[k] for k in (ELEMENTS,) if k in batch.feeds}
            targets |= {k: batch.feeds[k][:, n : n + 1] for k in (WEIGHTS,) if k in batch.feeds}
        else:
            classes = values[CLASSES][:, n : n + 1]
            targets = {TARGETS: classes, RANKS: np.zeros(len(classes), np.int64)}
        fixed = {**targets, **{k: batch.feeds[k][n : n + 1] for k in self.program.others}}
        runner = self.setup.runner
        if self.plan.layers and method.space == "layer":
            runner = runner.at(place, self.plan.layers[place].name)
        compare = compared(batch.sums, n, self.plan.detector, batch.items[n], self.setup.labels)
        runs = ImageRuns(runner, batch.tensor[n : n + 1], fixed, self.element, compare)
        return method.driven(runs)

    def _explanation(
        self,
        method: Method,
        group: Group,
        maps: Sequence[NDArray[np.float32]],
        values: dict[str, NDArray[Any]],
        batch: Batch,
        n: int,
        t: int,
        target: Wanted,
    ) -> Explanation:
        said = self._said(values, batch, n, t, target)
        facts = self.plan.parts.get(part_name(method.label, group.places[0]))
        negative: tuple[str, ...] = ()
        if facts is not None and facts.negative:
            flags = values[facts.outputs["negative"]]
            negative = tuple(name for name, yes in zip(facts.negative, flags, strict=True) if yes)
        seen = values[VALUES if self.element is not None else self.plan.scores][n]
        largest, kind = float(np.abs(seen).max()), method.proportional
        if method.space == "layer":
            notes = [note_on(m, largest, proportional=kind) for m in maps]
        else:
            reach = max(float(batch.tensor[n].max()), -float(batch.tensor[n].min()))
            notes = [note_at_input(m, largest, reach, proportional=kind) for m in maps]
        if group.how == SCALE:
            read = group.read(notes)
            maps, notes, group = [maps[read]], [notes[read]], Group((group.places[read],))
        signed, note = group.joined(maps, notes, self._size(batch))
        at_layer = bool(self.plan.layers) and method.space == "layer"
        layers = [self.plan.layers[p] for p in group.places] if at_layer else []
        names = tuple(layer.name for layer in layers)
        item = self._item(batch, n, signed, method)
        return Explanation(
            method=method.label,
            space=method.space,
            layer=group.named(names) or self.plan.image.name,
            layers=names,
            channels=channels_of(layers),
            score_name=self.plan.score,
            **said._asdict(),
            signed=signed,
            source=item.source,
            photo=item.photo,
            geometry=item.geometry,
            given=item.given,
            changed=facts.changed if facts else (),
            negative=negative,
            note=note,
            bgr=self.setup.preprocess is not None and self.setup.preprocess.color == "BGR",
        )
