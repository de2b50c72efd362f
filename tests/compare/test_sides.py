"""Both sides, fed and matched: forms of one network agree with it, others do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcam
from onnxcam.compare import feeding as feeding_module
from onnxcam.compare.facts import About, Quantized
from onnxcam.compare.feeding import Feeding, look_like_noise
from onnxcam.compare.recorded import Recorded, Recorder
from onnxcam.compare.results import Results, Row
from onnxcam.compare.run import Run
from onnxcam.compare.setup import Options, Pair, pair, reference_side
from onnxcam.compare.sides import ModelSide, Seen
from onnxcam.compare.totals import totals
from onnxcam.errors import CompareError, MethodError, OnnxcamError, ResultsError, ScoreError

from ..conftest import parse, small_cnn
from .conftest import make_photos
from .models import (
    channels_last,
    cnn,
    integer_ends,
    larger,
    renamed,
    shuffled,
    without_gradient,
)

OPTIONS = Options(cache=False, provider="cpu")


def compared(
    reference: Path, candidate: Path, photos: list[Path], options: Options = OPTIONS
) -> tuple[Pair, Results]:
    both = pair(reference_side(reference, options), candidate, options, photos)
    rows = [r for batch in Run(both.reference, both.candidate, both.feeding, photos) for r in batch]
    return both, Results(both.reference.about, both.candidate.about, both.matched, rows)


def means(results: Results) -> dict[str, float]:
    return {name: total.mean for name, total in totals(results.rows).items()}


def test_a_side_says_what_the_explainer_says(reference: Path, photos: list[Path]) -> None:
    side = reference_side(reference, OPTIONS)
    explainer = onnxcam.Explainer(reference, providers="cpu")
    feeding = Feeding(side.about, side.about.image, None)
    fed = [feeding.prepare(p)[0] for p in photos]
    keys = [str(i) for i in range(len(photos))]
    for targets in (None, [3, 1] * 6):
        like = targets and [Seen(np.eye(5, dtype="f")[t], np.ones((1, 1), "f")) for t in targets]
        seen = side.look(keys, fed, like)
        right = explainer.explain_batch(photos, per_image=targets)
        for one, [other] in zip(seen, right, strict=True):
            np.testing.assert_allclose(one.heat, other.raw, atol=1e-6)
            assert one.scores[other.target] == pytest.approx(other.score, abs=1e-6)
            if targets is None:
                assert one.scores.argmax() == other.target
        np.testing.assert_allclose(seen[0].scores, explainer.scores(photos[0]), atol=1e-6)


@pytest.mark.parametrize(
    ("form", "said", "layer"),
    [
        (cnn, "prepared as the reference's", "by name"),
        (lambda: renamed(cnn()), "prepared as the reference's", "by shape and values"),
        (lambda: channels_last(cnn()), "axes turned from NCHW to NHWC", "by name"),
        (lambda: small_cnn(dynamic=False), "prepared as the reference's", "by name"),
    ],
    ids=["itself", "renamed", "nhwc", "one-image"],
)
def test_the_same_network_in_another_form_agrees(
    reference: Path, photos: list[Path], put: Callable, form: Callable, said: str, layer: str
) -> None:
    both, results = compared(reference, put(form(), "candidate.onnx"), photos)
    assert both.matched["preprocess"].endswith(said) and layer in both.matched["layer"]
    found = means(results)
    assert found["agreement"] == found["top5"] == 1
    assert found["correlation"] == pytest.approx(1, abs=1e-5)
    assert found["peak_shift"] == pytest.approx(0) and found["iou"] == 1
    assert [r.image for r in results.rows] == [str(p) for p in photos]


def test_quantized_ends_are_fed_integers(reference: Path, photos: list[Path], put) -> None:
    path = put(integer_ends(cnn()), "candidate.onnx")
    both, results = compared(reference, path, photos)
    assert both.candidate.about.ends == Quantized(pytest.approx(0.01), 128)
    assert "quantized to uint8, scale 0.01" in both.matched["preprocess"]
    first, second = (fed.tensor for fed in both.feeding.prepare(photos[0]))
    right = np.clip(np.round(first / 0.01) + 128, 0, 255)
    assert second.dtype == np.uint8
    np.testing.assert_allclose(second, right, atol=1)
    assert means(results)["correlation"] > 0.99
    # The other way round: the reference takes integers, and the candidate what they stand for.
    card = path.with_suffix(".toml")
    card.write_text("[preprocess]\nsize = 16\n")
    back, _ = compared(path, reference, photos)
    pixels, numbers = (fed.tensor for fed in back.feeding.prepare(photos[0]))
    np.testing.assert_allclose(numbers, (pixels.astype("f") - 128) * np.float32(0.01), atol=1e-6)


def test_other_sizes_show_the_same_places(reference: Path, photos: list[Path], put) -> None:
    both, results = compared(reference, put(larger(cnn()), "candidate.onnx"), photos)
    assert "in its size, 24x24" in both.matched["preprocess"]
    first, second = (fed.tensor for fed in both.feeding.prepare(photos[0]))
    assert first.shape[2:] == (16, 16) and second.shape[2:] == (24, 24)
    assert results.rows[0].candidate.heat.shape == (12, 12)
    assert means(results)["correlation"] > 0.8
    turned, _ = compared(reference, put(channels_last(larger(cnn())), "turned.onnx"), photos[:0])


def test_a_broken_network_disagrees(reference: Path, photos: list[Path], put) -> None:
    _, results = compared(reference, put(shuffled(cnn()), "candidate.onnx"), photos)
    assert means(results)["correlation"] < 0.7


def test_layers_and_scores_that_are_given(reference: Path, photos: list[Path], put) -> None:
    path = put(renamed(cnn()), "candidate.onnx")
    options = Options(cache=False, layer="r1", candidate_layer="-1")
    both, results = compared(reference, path, photos, options)
    assert both.matched["layer"].endswith("as given")
    assert results.rows[0].reference.heat.shape == (16, 16)
    twin = compared(reference, path, photos, Options(cache=False, layer="r1"))[0]
    assert "by shape and values, correlation 1.000" in twin.matched["layer"]
    named = Options(cache=False, candidate_score=both.candidate.about.score)
    assert means(compared(reference, path, photos, named)[1])["agreement"] == 1


def test_where_no_values_are_alike_it_says_so(reference: Path, photos: list[Path], put) -> None:
    path = put(renamed(shuffled(cnn())), "candidate.onnx")
    with pytest.warns(UserWarning, match="--candidate-layer NAME"):
        both = compared(reference, path, photos)[0]
    assert "by shape and place" in both.matched["layer"]


def test_what_cannot_be_compared_is_refused(reference: Path, photos: list[Path], put) -> None:
    grey = parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        net (float[N,1,16,16] image) => (float[N,5] logits) {
            c1 = Conv <pads=[1,1,1,1]> (image, w1)
            pooled = GlobalAveragePool (c1)
            logits = Flatten (pooled)
        }
        """,
        {"w1": np.ones((5, 1, 3, 3), "f")},
    )
    cases: list[tuple[onnx.ModelProto, str]] = [
        (grey, "images of 3 channel.*images of 1 channel"),
        (small_cnn(classes=7), "has 7 classes, the reference's 'logits' 5"),
        (small_cnn(channels=3), "no layer goes with .*--candidate-layer NAME.*--method saliency"),
        (without_gradient(), "no layer goes with|gradient"),
    ]
    for model, said in cases:
        with pytest.raises(OnnxcamError, match=said):
            compared(reference, put(model, "candidate.onnx"), photos)


def test_the_ways_out_work(reference: Path, photos: list[Path], put) -> None:
    other = put(small_cnn(channels=3), "candidate.onnx")
    at_input = Options(cache=False, method="saliency")
    assert len(compared(reference, other, photos, at_input)[1].rows) == len(photos)
    named = Options(cache=False, layer="r2", candidate_layer="r2")
    assert len(compared(reference, other, photos, named)[1].rows) == len(photos)


def test_a_candidate_without_gradient_path(reference: Path, photos: list[Path], put) -> None:
    path = put(without_gradient(), "candidate.onnx")
    named = Options(cache=False, layer="r1", candidate_layer="r1")
    with pytest.raises(OnnxcamError, match="candidate.onnx"):
        compared(reference, path, photos, named)


def test_integers_that_nothing_explains(reference: Path, photos: list[Path], put) -> None:
    model = integer_ends(cnn())
    model.graph.node[0].op_type = "Cast"
    del model.graph.node[0].input[1:]
    model.graph.node[0].attribute.extend([onnx.helper.make_attribute("to", 1)])
    path = put(model, "candidate.onnx")
    with pytest.raises(CompareError, match="--candidate-preprocess NAME|FILE"):
        compared(reference, path, photos)
    card = path.with_name("pixels.toml")
    card.write_text("[preprocess]\nsize = 16\n")
    own = Options(cache=False, candidate_preprocess=str(card))
    both, _ = compared(reference, path, photos, own)
    assert "in its own way" in both.matched["preprocess"]
    second = both.feeding.prepare(photos[0])[1].tensor
    assert second.dtype == np.uint8 and second.max() > 150
    path.with_suffix(".toml").write_text("[preprocess]\nsize = 16\n")
    with pytest.raises(CompareError, match="the reference takes uint8 in 'pixels'"):
        compared(path, reference, photos)
    assert (
        len(compared(path, reference, photos, Options(candidate_preprocess="auto"))[1].rows) == 12
    )


def test_methods_of_many_runs_are_refused(reference: Path) -> None:
    with pytest.raises(CompareError, match="Choose grad-cam, hires-cam or layer-cam"):
        reference_side(reference, Options(cache=False, method="occlusion"))
    for name in ("grad-cam", "hires-cam", "layer-cam"):
        reference_side(reference, Options(cache=False, method=name))
    with pytest.raises(MethodError):
        reference_side(reference, Options(cache=False, method="none"))


def test_noise_is_told_from_photographs(photos: list[Path], reference: Path) -> None:
    side = reference_side(reference, OPTIONS)
    feeding = Feeding(side.about, side.about.image, None)
    tensors = [feeding.prepare(p)[0].tensor for p in photos]
    assert look_like_noise(tensors, side.about.image) == 0
    noise = list(np.random.default_rng(0).normal(size=(9, 1, 3, 16, 16)).astype("f"))
    assert look_like_noise(noise, side.about.image) == 9
    assert 0 < feeding_module._NEIGHBOURS < 0.9


def test_a_recorded_run_says_the_same(reference: Path, photos: list[Path], put, tmp_path) -> None:
    candidate = put(shuffled(cnn()), "candidate.onnx")
    both, right = compared(reference, candidate, photos)
    recorder = Recorder(both.reference)
    for _ in Run(recorder, None, both.feeding, photos):
        pass
    recorded = Recorded(recorder.save(tmp_path / "run.npz"))
    assert recorded.about == both.reference.about
    again = pair(recorded, candidate, OPTIONS, photos)
    rows = [
        r for batch in Run(again.reference, again.candidate, again.feeding, photos) for r in batch
    ]
    assert [r.measures for r in rows] == [r.measures for r in right.rows]
    other = make_photos(tmp_path / "others")[0].with_name("none.png")
    other.write_bytes(photos[0].read_bytes() + b" ")
    with pytest.raises(CompareError, match="not in the recorded run, which has 12: .*none.png"):
        pair(recorded, candidate, OPTIONS, [*photos, other])
    with pytest.raises(CompareError, match="--method grad-cam"):
        pair(recorded, candidate, Options(cache=False, method="hires-cam"), photos)


@pytest.mark.parametrize("damage", ["cut", "text", "absent", "results"])
def test_a_damaged_recorded_run(reference: Path, photos, tmp_path: Path, damage: str) -> None:
    side = reference_side(reference, OPTIONS)
    recorder = Recorder(side)
    feeding = Feeding(side.about, side.about.image, None)
    list(Run(recorder, None, feeding, photos[:2]))
    path = recorder.save(tmp_path / "run.npz")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "text":
        path.write_text("not a run")
    elif damage == "absent":
        path.unlink()
    else:
        with path.open("wb") as file:
            np.savez(file, head=np.array(json.dumps({"kind": "another"})))
    with pytest.raises(ResultsError, match="run.npz"):
        Recorded(path)


def test_facts_survive_storage(reference: Path) -> None:
    about = reference_side(reference, OPTIONS).about
    assert About.from_dict(json.loads(json.dumps(about.to_dict()))) == about


def test_what_computes_nan_is_a_failed_image(reference: Path, photos: list[Path], put) -> None:
    model = cnn()
    [bias] = [t for t in model.graph.initializer if t.name == "b3"]
    broken = np.full(5, np.inf, "f")
    bias.CopyFrom(onnx.numpy_helper.from_array(broken, "b3"))
    both = pair(
        reference_side(reference, OPTIONS),
        put(cnn(), "candidate.onnx"),
        OPTIONS,
        photos,
    )
    candidate = put(model, "broken.onnx")
    side = ModelSide(onnxcam.Explainer(candidate, providers="cpu", layer="r2"))
    rows: list[Row] = [
        r for batch in Run(both.reference, side, both.feeding, photos) for r in batch
    ]
    assert {r.error for r in rows} == {"the candidate computes NaN or infinity on it"}
    assert all(not r.measures for r in rows)


def test_a_detector_is_refused(put) -> None:
    flat = parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        net (float[N,3,16,16] image) => (float[N,4,16,16] out) {
            out = Conv <pads=[1,1,1,1]> (image, w)
        }
        """,
        {"w": np.ones((4, 3, 3, 3), "f")},
    )
    with pytest.raises(ScoreError, match="compare needs: --score NAME"):
        reference_side(put(flat, "dense.onnx"), OPTIONS)
