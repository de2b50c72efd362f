"""Steps, texts and tokens: against all alignments, finite differences, and other layouts."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxcam
from onnxcam.errors import MethodError, ScoreError, TargetError
from onnxcam.targets.ctc import greedy, log_likelihood, log_softmax
from onnxcam.targets.sequences import in_steps

from .cli.test_methods import cli
from .conftest import parse, runtime
from .test_cases import CASES, arrays
from .test_weighted_targets import cases

RNG = np.random.default_rng(9)
IMAGES = RNG.normal(size=(2, 1, 8, 24)).astype("f")
GREY = {"color": "grey"}
STEPS, CLASSES = 6, 5
LABELS = ["<blank>", "a", "b", "<space>", "T"]


def read(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    """What an alignment reads: repeats merged, then without blanks."""
    return tuple(c for c, _ in itertools.groupby(path) if c != blank)


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("text", [(1,), (1, 3), (1, 1), (3, 1, 3), (1, 1, 3), ()])
def test_a_likelihood_is_the_sum_over_all_alignments(text: tuple[int, ...], blank: int) -> None:
    logits = np.random.default_rng(len(text)).normal(size=(5, 4)) * 2
    p = np.exp(log_softmax(logits))
    paths = itertools.product(range(4), repeat=5)
    expected = sum(p[range(5), path].prod() for path in paths if read(path, blank) == text)
    found, gradient = log_likelihood(logits, text, blank)
    assert found == pytest.approx(np.log(expected), rel=1e-12)
    step = 1e-6
    for t, c in np.ndindex(5, 4):
        moved = np.zeros((5, 4))
        moved[t, c] = step
        up, down = (log_likelihood(logits + m, text, blank)[0] for m in (moved, -moved))
        assert gradient[t, c] == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_long_texts_of_sure_logits_neither_overflow_nor_vanish() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(400, 90)) * 200
    text = greedy(logits, 0)
    number, gradient = log_likelihood(logits.astype("f"), text, 0)
    best_alignment = log_softmax(logits.astype("f")).max(axis=1).sum()
    assert np.isfinite(gradient).all() and best_alignment <= number <= 0
    number, gradient = log_likelihood(logits, [*text[:-1], 89], 0)
    assert number < -50 and np.abs(gradient).max() > 0.9
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-9)


def test_a_greedy_reading_is_merged() -> None:
    logits = np.eye(4)[[0, 1, 1, 0, 1, 3, 3, 2, 0]]
    assert greedy(logits, 0) == [1, 1, 3, 2]
    assert greedy(logits, 3) == [0, 1, 0, 1, 2, 0]


def test_tokens_by_finite_differences() -> None:
    target = in_steps("tokens: 3,0,2", None)
    assert target is not None and not target.linear
    values = np.random.default_rng(8).normal(size=(5, 4))

    def number(v: np.ndarray) -> float:
        p = np.exp(v) / np.exp(v).sum(axis=1, keepdims=True)
        return float(np.log(p[0, 3]) + np.log(p[1, 0]) + np.log(p[2, 2]))

    found = target.weigh(values)
    assert found.number == pytest.approx(number(values), rel=1e-12)
    for at in np.ndindex(5, 4):
        moved = np.zeros((5, 4))
        moved[at] = 1e-6
        slope = (number(values + moved) - number(values - moved)) / 2e-6
        assert found.weights[at] == pytest.approx(slope, abs=1e-8)


# How an output lies, of logits [N, T, C]; where each ends in what a reader of texts may end in.
LAYOUTS = {
    "images, steps, classes": ("out = Identity (logits)", "float[N,6,5]"),
    "steps, images, classes": ("out = Transpose <perm=[1,0,2]> (logits)", "float[6,N,5]"),
    "images, classes, steps": ("out = Transpose <perm=[0,2,1]> (logits)", "float[N,5,6]"),
    "of a convolution": ("out = Conv (columns, w3_as_kernel, b3)", "float[N,5,6]"),
    "softmax": ("out = Softmax <axis=-1> (logits)", "float[N,6,5]"),
    "log-softmax, turned": (
        "p = LogSoftmax <axis=2> (logits) out = Transpose <perm=[1,0,2]> (p)",
        "float[6,N,5]",
    ),
    "turned, softmax": (
        "t = Transpose <perm=[2,0,1]> (logits) out = Softmax <axis=0> (t)",
        "float[5,N,6]",
    ),
    "best classes": (
        "p = Softmax <axis=2> (logits) best = ArgMax <axis=2, keepdims=0> (p) "
        "out = Cast <to=6> (best)",
        "int32[N,6]",
    ),
}


COLUMNS = """
    c1 = Conv <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (image, w1)
    r1 = Relu (c1)
    c2 = Conv <kernel_shape=[4,2], strides=[1,2]> (r1, w2)
    r2 = Relu (c2)
    columns = Squeeze (r2, two)
"""


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    found = {
        "w1": rng.normal(size=(4, 1, 3, 3)).astype("f"),
        "w2": rng.normal(size=(7, 4, 4, 2)).astype("f") * 0.4,
        "w3": rng.normal(size=(7, CLASSES)).astype("f"),
        "b3": rng.normal(size=CLASSES).astype("f"),
        "two": np.array([2]),
    }
    return {**found, "w3_as_kernel": np.ascontiguousarray(found["w3"].T[..., None])}


def reader(layout: str) -> onnx.ModelProto:
    """A network that reads columns of [N,1,8,24] as six steps of five classes."""
    nodes, shape = LAYOUTS[layout]
    return parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,1,8,24] image) => ({shape} out) {{
            {COLUMNS}
            turned = Transpose <perm=[0,2,1]> (columns)
            product = MatMul (turned, w3)
            logits = Add (product, b3)
            {nodes}
        }}
        """,
        weights(),
    )


def logits_of(images: np.ndarray) -> np.ndarray:
    model = reader("images, steps, classes")
    return runtime(model).run(["out"], {"image": images})[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same(layout: str, save) -> None:
    """Also for a batch; the reference are elements and sums of the inner tensor of logits."""
    explainer = onnxcam.Explainer(save(reader(layout)), layer="r1", preprocess=GREY, labels=LABELS)
    scores = logits_of(IMAGES)
    asked = ["step:2", "step:5=b", "step:1=4", "text:", "text:a T", "tokens:1,4,2", "text/0:b"]
    together = explainer.explain_batch(IMAGES, asked)
    for n, image in enumerate(IMAGES):
        elements = [f"logits[{t},{c}]" for t, c in np.ndindex(STEPS, CLASSES)]
        maps = np.array([e.signed for e in explainer.explain(image, elements)])
        for target, found in zip(asked, together[n], strict=True):
            made = in_steps(target, LABELS)
            assert made is not None
            expected = made.weigh(scores[n])
            right = np.tensordot(expected.weights.ravel(), maps, 1)
            np.testing.assert_allclose(
                found.signed, right, rtol=0, atol=1e-4 * np.abs(right).max(), err_msg=target
            )
            assert found.score == pytest.approx(expected.number, rel=1e-4)
        best = scores[n, 2].argmax()
        assert together[n][0].element == f"step:2={LABELS[best]}"
        names = ["", "a", "b", " ", "T"]
        said = "text:" + "".join(names[c] for c in read(tuple(scores[n].argmax(axis=1)), 0))
        assert together[n][3].element == said
        [again] = explainer.explain(image, said)
        np.testing.assert_allclose(again.signed, together[n][3].signed, rtol=1e-4, atol=1e-6)


SPELLED = {  # labels and a text, and its classes
    ("<blank>,a,b, ,T", "text:ab"): (0, [1, 2]),
    ("a,b,c,T,[blank]", "text:cab"): (4, [2, 0, 1]),
    ("-,a,b,A,T", "text:Aa"): (0, [3, 1]),
    ("-,a,b,x,T", "text:AT"): (0, [1, 4]),
    ("a,b,ab,T", "text/0:aba"): (0, [3, 1]),
    ("a,b,c,T", "text/4:Tab"): (4, [3, 0, 1]),
    ("", "text/4:3, 1"): (4, [3, 1]),
    ("a,b,<space>,T", "text/0:a b"): (0, [1, 3, 2]),
}


@pytest.mark.parametrize(("labels", "text"), SPELLED)
def test_how_a_text_is_spelled(labels: str, text: str) -> None:
    blank, classes = SPELLED[labels, text]
    target = in_steps(text, labels.split(",") if labels else None)
    assert target is not None
    values = np.random.default_rng(1).normal(size=(6, 5))
    number, gradient = log_likelihood(values, classes, blank)
    found = target.weigh(values)
    assert found.number == pytest.approx(number, rel=1e-12)
    np.testing.assert_allclose(found.weights, gradient)


@pytest.mark.parametrize(
    ("labels", "text", "message"),
    [
        (LABELS, "step:6", "steps count from 0 to 5"),
        (LABELS, "step:1=x", "no such label"),
        (LABELS, "step:1=7", "out of range"),
        (LABELS, "text:aQ", "no class reads 'Q'"),
        (LABELS, "text:aaaab", "a text that needs 8 steps"),
        (LABELS, "text/5:a", "the blank 5 is out of range"),
        (None, "text/0:a", "with --labels"),
        (None, "text/0:9", "class 9 is out of range"),
        (None, "text/0:1,0", "class 0 is the blank"),
        (["a", "b"], "text/0:a", "no labels are known that fit"),
        (["<blank>", "a", "b", "c"], "text/0:a", "no labels are known that fit"),
        (LABELS, "tokens:1,1,1,1,1,1,1", "7 tokens for 6 steps"),
        (LABELS, "tokens:1,top:2", "is not one class"),
    ],
)
def test_wrong_ones(labels: list[str] | None, text: str, message: str) -> None:
    target = in_steps(text, labels)
    assert target is not None
    with pytest.raises(TargetError, match=message):
        target.weigh(logits_of(IMAGES)[0])


def test_rows_taken_apart_to_lengths_of_the_run(save) -> None:
    """As PyTorch's exporter writes it for images of any width: [T * N, C] to [T, N, -1]."""
    any_width = parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,1,8,W] image) => (float[A,B,C] out) {{
            {COLUMNS}
            turned = Transpose <perm=[2,0,1]> (columns)
            lengths = Shape (turned)
            ends = Slice (lengths, zero, two)
            rows = Reshape (turned, seven)
            product = Gemm (rows, w3, b3)
            shape = Concat <axis=0> (ends, minus)
            out = Reshape (product, shape)
        }}
        """,
        {
            **weights(),
            "zero": np.array([0]),
            "seven": np.array([-1, 7]),
            "minus": np.array([-1]),
        },
    )
    explainer = onnxcam.Explainer(
        save(any_width), layer="r1", preprocess=GREY, labels=LABELS, method="hires-cam"
    )
    images = np.random.default_rng(4).normal(size=(1, 1, 8, 40)).astype("f")
    scores = logits_of(images[..., :24])
    wide = runtime(any_width).run(["out"], {"image": images})[0]
    assert wide.shape == (10, 1, 5)
    np.testing.assert_allclose(wide[:5, 0], scores[0, :5], rtol=1e-4, atol=1e-5)
    step, text = explainer.explain(images[0], ["step:8=b", "text:ab"])
    assert step.score == pytest.approx(wide[8, 0, 2], rel=1e-5)
    assert text.score == pytest.approx(log_likelihood(wide[:, 0], [1, 2], 0)[0], rel=1e-5)
    seen = np.flatnonzero(np.abs(step.signed).max(axis=0))
    assert set(seen) <= {16, 17} and seen.size  # what the step is made of


def test_case_of_labels_counts_where_it_can() -> None:
    for name, index in (("b", 1), ("B", 3), ("A", 0)):
        target = in_steps(f"step:0={name}", ["a", "b", "c", "B"])
        assert target is not None
        assert target.weigh(np.eye(4)).weights[0].argmax() == index


def test_which_class_is_the_blank_is_asked(save) -> None:
    """The options that the message names explain, each with its own."""
    explainer = onnxcam.Explainer(save(reader("softmax")), preprocess=GREY)
    for target in ("text:", "text:3,1"):
        with pytest.raises(TargetError, match="which of the 5 classes is the blank") as refusal:
            explainer.explain(IMAGES[0], target)
        options = re.findall(r"-t ('[^']*')", str(refusal.value))
        first, last = (explainer.explain(IMAGES[0], shlex.split(o)[0])[0] for o in options)
        assert first.score != pytest.approx(last.score)


def test_a_reading_of_nothing_is_refused(save) -> None:
    model = reader("images, steps, classes")
    bias = next(i for i in model.graph.initializer if i.name == "b3")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.float32([50, 0, 0, 0, 0]), "b3"))
    explainer = onnxcam.Explainer(save(model), preprocess=GREY, labels=LABELS)
    with pytest.raises(TargetError, match=r"every step is the blank. Of one step: -t step:0"):
        explainer.explain(IMAGES[0], "text:")
    assert explainer.explain(IMAGES[0], "step:0")[0].element == "step:0=<blank>"


def test_methods_of_many_runs_take_steps_not_likelihoods(save) -> None:
    explainer = onnxcam.Explainer(
        save(reader("steps, images, classes")), preprocess=GREY, labels=LABELS, method="occlusion"
    )
    one, other = explainer.explain(IMAGES[0], ["step:2=b", "logits[2,2]"])
    np.testing.assert_allclose(one.signed, other.signed, rtol=1e-4, atol=1e-6)
    with pytest.raises(MethodError, match="does not go with the target 'text:a'"):
        explainer.explain(IMAGES[0], "text:a")


def test_axes_that_are_not_certain_are_refused_with_a_way_out(save) -> None:
    """Nothing tells the classes from the steps."""
    unsure = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,1,8,24] image) => (float[N,12,3] out) {
            c1 = Conv <kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]> (image, w1)
            r1 = Tanh (c1)
            out = Einsum <equation="nchw->nwc"> (r1)
        }
        """,
        {"w1": RNG.normal(size=(3, 1, 3, 3)).astype("f")},
    )
    explainer = onnxcam.Explainer(save(unsure), preprocess=GREY, layer="r1")
    with pytest.raises(ScoreError, match="is not certain") as refusal:
        explainer.explain(IMAGES[0], "step:1")
    [option] = re.findall(r"-t ('[^']*')", str(refusal.value))
    assert explainer.explain(IMAGES[0], shlex.split(option)[0])[0].score != 0


def test_no_steps_and_several(save) -> None:
    model = reader("softmax")
    model.graph.node.append(onnx.helper.make_node("Softmax", ["product"], ["second"], axis=-1))
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("second", onnx.TensorProto.FLOAT, ["N", 6, 5])
    )
    path = save(model)
    with pytest.raises(ScoreError, match="several outputs have scores of steps") as refusal:
        onnxcam.Explainer(path, preprocess=GREY).explain(IMAGES[0], "step:1")
    options = re.findall(r"--score '([^']*)'", str(refusal.value))
    assert len(options) == 2
    for name in options:
        found = onnxcam.Explainer(path, preprocess=GREY, score=name, labels=None)
        assert found.explain(IMAGES[0], "step:1=2")[0].element == "step:1=2"


@cases
def test_a_classifier_has_no_steps() -> None:
    explainer = onnxcam.Explainer(CASES / "grey.onnx")
    with pytest.raises(ScoreError, match="no output has scores of steps"):
        explainer.explain(arrays("grey")["input.image"][:1], "step:1")


@cases
def test_texts_of_the_command_line(tmp_path: Path) -> None:
    image = (arrays("crnn")["input.image"][0, 0] * 40 + 128).clip(0, 255).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "line.png")
    (tmp_path / "labels.txt").write_text("<blank>\na\nb\no\nt\n<space>\nx\n")
    (tmp_path / "card.toml").write_text('[preprocess]\ncolor = "grey"\ndivide = 255\n')
    asked = ["-t", "text:a boot", "-t", "text:", "-t", "step:4", "-t", "step:4=x"]
    cli(
        "explain", tmp_path / "line.png", "-m", CASES / "crnn.onnx", "--labels",
        tmp_path / "labels.txt", "--preprocess", tmp_path / "card.toml", *asked, "-o",
        tmp_path / "out",
    )  # fmt: skip
    document = json.loads((tmp_path / "out" / "explanations.json").read_text())
    records = document["images"][0]["explanations"]
    assert records[0]["target"] == "text:a boot" and records[0]["score"] < 0
    assert re.fullmatch("text:[abot x]+", records[1]["target"])
    assert records[1]["score"] > records[0]["score"]
    assert re.fullmatch("step:4=.+", records[2]["target"])
    assert len({r["overlay"] for r in records}) == 4
