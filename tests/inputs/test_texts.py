"""Texts become numbers as a card says, and nothing else does."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pytest

import onnxcam
from onnxcam.errors import InputArrayError, PreprocessError

from ..conftest import parse

WORDS = ["what", "color", "is", "circle"]
IMAGE = np.random.default_rng(0).random((3, 12, 12), np.float32)
CARD = """
[preprocess]
divide = 255

[inputs.question]
text = "bag of words"
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An image and five numbers of a question; their features are multiplied."""
    rng = np.random.default_rng(3)
    shapes = {"w1": (4, 3, 3, 3), "w2": (5, 4), "w3": (4, 3)}
    weights = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    made = parse(
        """
        <ir_version: 7, opset_import: ["" : 13]>
        net (float[N,3,12,12] image, float[N,5] question) => (float[N,3] answers) {
            c = Conv <pads=[1,1,1,1]> (image, w1)
            r = Relu (c)
            mean = GlobalAveragePool (r)
            seen = Flatten (mean)
            asked = MatMul (question, w2)
            both = Mul (seen, asked)
            logits = MatMul (both, w3)
            answers = Softmax <axis=1> (logits)
        }
        """,
        weights,
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def signed(model: Path, card: str, question: object) -> np.ndarray:
    model.with_suffix(".toml").write_text(card, "utf-8")
    [found] = onnxcam.Explainer(model).explain(IMAGE, 1, inputs={"question": question})
    return found.signed


@pytest.mark.parametrize(
    ("vocabulary", "text", "numbers"),
    [
        (f"words = {WORDS}\nfirst = 1", "What color is the-", None),
        (f"words = {WORDS}\nfirst = 1", "What COLOR is, what?", [0, 1, 1, 1, 0]),
        (f"words = {WORDS}\nfirst = 1\ncount = true", "what color\tis (what)?", [0, 2, 1, 1, 0]),
        (f"words = {['none', *WORDS]}", "circle.circle", [0, 0, 0, 0, 1]),
        ("file = 'words.txt'\nfirst = 1", "is circle", [0, 0, 0, 1, 1]),
        ("file = 'index.json'", "is circle", [0, 0, 1, 0, 1]),
        ("file = 'index.json'", "is what", None),  # number 7 of 5: Keras leaves it out
    ],
)
def test_a_bag_of_words(
    model: Path, vocabulary: str, text: str, numbers: list[float] | None
) -> None:
    model.with_name("words.txt").write_text("\n".join(WORDS))
    model.with_name("index.json").write_text('{"circle": 4, "Is": 2, "what": 7}')
    if numbers is None:
        with pytest.raises(InputArrayError, match="the word '(the|what)' is not in the vocabulary"):
            signed(model, CARD + vocabulary, text)
        return
    right = signed(model, CARD + vocabulary, np.array(numbers, np.float32))
    np.testing.assert_array_equal(signed(model, CARD + vocabulary, text), right)
    assert np.abs(signed(model, CARD + vocabulary, "is") - right).max() > 1e-3 * right.max()


def test_the_maps_of_a_text_are_those_of_its_numbers_by_hand(model: Path) -> None:
    """Grad-CAM of one class: w_k is asked_k w3[k, 1], over the number of places."""
    from onnx import load, numpy_helper

    w1, w2, w3 = (numpy_helper.to_array(t).astype(float) for t in load(model).graph.initializer)
    padded = np.pad(IMAGE.astype(float), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    maps = np.maximum(np.einsum("chwij,kcij->khw", windows, w1), 0)
    weights = (w2[2] + w2[4]) * w3[:, 1] / maps[0].size  # "color" and "circle"
    found = signed(model, f"{CARD}words = {WORDS}\nfirst = 1", "circle color")
    right = np.einsum("k,khw->hw", weights, maps)
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (f"words = {WORDS}", r"4 words, the last of which is number 3, for an input of 5 numbers"),
        (f"words = {WORDS}\nfirst = -1", "first is a number from 0 on, count is true or false"),
        ("words = ['is', 'Is']", "needs words, each of them once"),
        ("words = []", "needs words, each of them once"),
        ("words = 5", "words is a list"),
        ("words = ['is']\nfirst = 1000000000000", "a word has number 1,000,000,000,000; at most"),
        ("first = 1", "needs words = .* or file = "),
        ("file = 'gone.txt'", r"the words in 'gone.txt': cannot be read \("),
        ("file = 'text.json'", "gives each word its number, from 0 on"),
        ("word = ['is']", "unknown key 'word'. Nearest: words"),
    ],
)
def test_cards_that_are_wrong(model: Path, table: str, message: str) -> None:
    model.with_name("text.json").write_text('{"is": "circle"}')
    with pytest.raises(PreprocessError, match=message):
        signed(model, CARD + table, "is")


def test_other_kinds_and_inputs_are_refused(model: Path) -> None:
    with pytest.raises(PreprocessError, match='write it as a table with text = "bag of words"'):
        signed(model, CARD.replace("bag of words", "tokens"), "is")
    other = f"{CARD}words = {WORDS}\nfirst = 1".replace("question", "questions")
    with pytest.raises(
        PreprocessError, match="no such input besides the image 'image'. Nearest: q"
    ):
        signed(model, other, "is")
    with pytest.raises(InputArrayError, match="the text ' .' has no words"):
        signed(model, f"{CARD}words = {WORDS}\nfirst = 1", " .")
    with pytest.raises(InputArrayError, match="is given a text, 'is', and takes question"):
        signed(model, "[preprocess]\ndivide = 255", "is")


def explain(capfd, monkeypatch, *arguments: object) -> str:
    from onnxcam.cli import main

    call = ["onnxcam", "explain", *map(str, arguments), "-o", "out", "--no-cache", "--arrays"]
    monkeypatch.setattr("sys.argv", call)
    with pytest.raises(SystemExit) as ended:
        main()
        raise SystemExit(0)
    said = capfd.readouterr()
    return f"{ended.value.code or 0} {said.out} {said.err}"


def test_texts_at_the_command_line(model: Path, capfd, monkeypatch) -> None:
    """Every refusal's way out works; the record tells what was asked."""
    monkeypatch.chdir(model.parent)
    from PIL import Image

    Image.fromarray((IMAGE.transpose(1, 2, 0) * 255).astype(np.uint8)).save("a.png")
    given = (capfd, monkeypatch, "a.png", "-m", "model.onnx", "-t", "1")
    without = explain(*given, "--input", "question=what color")
    assert without.startswith("2") and "Is it a text?" in without
    [heading] = re.findall(r"see '(.*)' in what 'onnxcam targets' prints", without)
    page = (Path(__file__).parents[2] / "docs" / "targets.md").read_text("utf-8")
    assert f"## {heading}\n" in page

    Path("model.toml").write_text(f"{CARD}words = {WORDS}\nfirst = 1")
    missing = explain(*given)
    [way_out] = re.findall(r"--input question='a text'", missing)
    unknown = explain(*given, *shlex.split(way_out.replace("a text", "what colour")))
    assert "Nearest: color" in unknown
    assert not Path("out").exists()
    assert explain(*given, "--input", "question=what color").startswith("0")
    [image] = json.loads(Path("out/explanations.json").read_text("utf-8"))["images"]
    assert image["inputs"] == {"question": "what color"}
    [text] = [np.load(p)["signed"] for p in Path("out").glob("*.npz")]
    np.save("question.npy", np.array([0, 1, 1, 0, 0], np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert explain(*given, "--input", "question=question.npy").startswith("0")
    [array] = [np.load(p)["signed"] for p in Path("out").glob("*.npz")]
    np.testing.assert_array_equal(text, array)
    [image] = json.loads(Path("out/explanations.json").read_text("utf-8"))["images"]
    assert "inputs" not in image
