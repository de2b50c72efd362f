"""Where models diverge, and that leaving those nodes alone helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxcam.compare.comparison import walked
from onnxcam.compare.locate import LIMIT_DB, locate
from onnxcam.compare.setup import Options, pair, reference_side
from onnxcam.compare.suggest import Noisy, against_itself, suggested
from onnxcam.compare.totals import totals
from onnxcam.errors import CompareError

from ..conftest import parse, runtime
from .models import clipped, cnn, integer_ends, renamed
from .test_sides import compared, means

IMAGES = np.random.default_rng(8).normal(size=(4, 3, 16, 16)).astype("f")


def activations(model: onnx.ModelProto, *names: str) -> list[np.ndarray]:
    made = onnx.ModelProto.FromString(model.SerializeToString())
    del made.graph.output[:]
    made.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    return runtime(made).run(None, {"image": IMAGES})


def test_ratio_and_cosine_are_those_of_the_tensors(reference: Path, put) -> None:
    candidate = put(clipped(cnn(), 0.3), "candidate.onnx")
    found = locate(reference, candidate, [({"image": IMAGES[:2]}, {"image": IMAGES[:2]})] * 1)
    names = [s.tensor for s in found.steps]
    assert names[:4] == ["c1", "r1", "p1", "c2"]
    for step in found.steps[:6]:
        [a] = activations(cnn(), step.tensor)
        [b] = activations(clipped(cnn(), 0.3), step.tensor)
        a, b = a[:2].astype(np.float64), b[:2].astype(np.float64)
        noise = ((a - b) ** 2).sum()
        right = 10 * np.log10((a**2).sum() / noise) if noise else 200
        assert step.sqnr == pytest.approx(right, abs=1e-3)
        cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
        assert step.cosine == pytest.approx(cosine, abs=1e-5)
    assert found.first is not None and found.first.tensor == "r1" and found.first.operator == "Relu"


def test_nothing_diverges_from_itself(reference: Path) -> None:
    found = locate(reference, reference, [({"image": IMAGES}, {"image": IMAGES})])
    assert found.first is None and not found.exclude
    assert {s.sqnr for s in found.steps} == {200.0}
    assert found.to_python() == "nodes_to_exclude = []"


def test_by_shape_where_no_name_is_the_same(reference: Path, put) -> None:
    made = renamed(clipped(cnn(), 0.2))
    found = locate(
        reference,
        put(made, "candidate.onnx"),
        [({"image": IMAGES}, {made.graph.input[0].name: IMAGES})],
    )
    assert [s.tensor for s in found.steps] == ["c1", "c2", "logits"]
    assert found.first is not None and found.first.tensor == "c2"


def test_models_with_nothing_in_common(reference: Path, put) -> None:
    other = parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        net (float[N,3,16,16] photo) => (float[N,3] out) {
            pool = GlobalAveragePool (photo)
            out = Flatten (pool)
        }
        """
    )
    with pytest.raises(CompareError, match="without --locate"):
        locate(reference, put(other, "candidate.onnx"), [])


class Reader:
    def __init__(self, tensors: list[np.ndarray]) -> None:
        self.left = iter(tensors)

    def get_next(self) -> dict[str, np.ndarray] | None:
        found = next(self.left, None)
        return None if found is None else {"image": found}


def quantized(path: Path, out: Path, tensors: list[np.ndarray], exclude: list[str]) -> Path:
    from onnxruntime.quantization import QuantFormat, quantize_static

    quantize_static(
        str(path),
        str(out),
        Reader(tensors),
        quant_format=QuantFormat.QDQ,
        reduce_range=True,
        nodes_to_exclude=exclude,
    )
    return out


@pytest.mark.filterwarnings("ignore")
def test_excluding_the_nodes_improves_the_agreement(put, photos: list[Path], tmp_path) -> None:
    """One channel is small and its weights large, so that a scale for all leaves the rest little."""
    model = cnn()
    weights = {t.name: t for t in model.graph.initializer}
    for name, place, factor in (("w1", 3, 1 / 60), ("b1", 3, 1 / 60), ("w2", np.s_[:, 3], 60)):
        array = numpy_helper.to_array(weights[name]).copy()
        array[place] *= factor  # the same function, as the Relu between is homogeneous
        weights[name].CopyFrom(numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = f"node {node.output[0]}"
    path = put(model, "reference.onnx", card=True)
    options = Options(cache=False, provider="cpu")
    side = reference_side(path, options)
    both = pair(side, path, options, photos)
    tensors = [both.feeding.prepare(p)[0].tensor for p in photos[:6]]
    first = quantized(path, tmp_path / "first.onnx", tensors, [])
    pairs, before = compared(path, first, photos)
    located = walked(pairs, photos)
    assert located.first is not None and located.first.node == "node r2"
    assert "node c2" in located.exclude  # whose own output the quantizer merged away
    assert set(located.exclude) <= {n.name for n in model.graph.node}
    scope: dict[str, list[str]] = {}
    exec(located.to_python(), scope)
    second = quantized(path, tmp_path / "second.onnx", tensors, scope["nodes_to_exclude"])
    after = means(compared(path, second, photos)[1])
    assert after["correlation"] > means(before)["correlation"] + 0.01
    assert after["score_drift"] < means(before)["score_drift"]


def test_the_limit_is_a_tenth_of_the_signal() -> None:
    signal = np.random.default_rng(0).normal(size=1000)
    noisy = signal + 0.1 * np.random.default_rng(1).normal(size=1000)
    ratio = 10 * np.log10((signal**2).sum() / ((noisy - signal) ** 2).sum())
    assert ratio == pytest.approx(LIMIT_DB, abs=0.5)


def test_thresholds_from_the_reference_itself(reference: Path, photos: list[Path]) -> None:
    side = reference_side(reference, Options(cache=False, provider="cpu"))
    rows = [r for batch in against_itself(side, photos) for r in batch]
    found = totals(rows)
    policy = suggested(rows)
    assert 0.9 < found["correlation"].mean < 1
    assert found["correlation"].low - 0.021 <= policy.mean["min_correlation"]
    assert policy.mean["min_correlation"] <= found["correlation"].low - 0.009
    assert policy.mean["max_peak_shift"] >= found["peak_shift"].high
    assert [r.measures for batch in against_itself(side, photos) for r in batch] == [
        r.measures for r in rows
    ]
    other = [r for batch in against_itself(side, photos, seed=1) for r in batch]
    assert other != rows
    assert totals(other)["correlation"].mean >= policy.mean["min_correlation"]


@pytest.mark.parametrize("integers", [False, True])
def test_the_noise_is_of_four_grey_levels(photos: list[Path], put, integers: bool) -> None:
    model = integer_ends(cnn(), 1 / 127.5, 128) if integers else cnn()
    path = put(model, "model.onnx", card=True)
    if integers:
        path.with_suffix(".toml").write_text("[preprocess]\nsize = 16\n")
    side = reference_side(path, Options(cache=False, provider="cpu"))
    tensor = np.full((1, 3, 16, 16), 100 if integers else 0.1, np.uint8 if integers else "f")
    spread = Noisy(side)._disturbed("abcdef0123", tensor).astype("f").std()
    levels = spread if integers else spread * 255  # the card scales to -0.5..0.5
    assert levels == pytest.approx(4, rel=0.1)
