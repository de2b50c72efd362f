"""The paper's other tasks, with real networks on pictures drawn here (docs/tasks.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

import onnxcam

from .conftest import runtime, shared

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
COLOURS = {
    "black": "black",
    "gray": "#808080",
    "red": "red",
    "green": "lime",
    "blue": "blue",
    "yellow": "yellow",
    "teal": "teal",
    "brown": "#a52a2a",
}
SHAPES = ("circle", "rectangle", "triangle")


def shape(kind: str, colour: str, rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """One shape on a light ground as in easy-vqa, and what is on it or within 4 pixels."""
    picture = Image.new("RGB", (64, 64), tuple(rng.integers(230, 256, 3).tolist()))
    size = int(rng.integers(12, 28))
    x, y = rng.integers(2, 62 - size, 2).tolist()
    box = (x, y, x + size, y + size)
    mask = Image.new("1", (64, 64))
    for canvas, fill in ((picture, COLOURS[colour]), (mask, 1)):
        draw = ImageDraw.Draw(canvas)
        if kind == "circle":
            draw.ellipse(box, fill=fill)
        elif kind == "rectangle":
            draw.rectangle((x, y, x + size // 2, y + size), fill=fill)
        else:
            top = y + size * (1 - 0.75**0.5)  # equilateral
            draw.polygon([(x, y + size), (x + size, y + size), (x + size / 2, top)], fill=fill)
    return picture, np.asarray(mask.convert("L").filter(ImageFilter.MaxFilter(9))) > 0


def test_what_colour_the_circle_is_is_seen_on_the_circle() -> None:
    """Whatever is asked, and for every shape and colour."""
    explainer = onnxcam.Explainer(
        shared("models", "easy-vqa-keras.onnx"),
        preprocess=EXAMPLES / "easy-vqa.toml",
        method="layer-cam",
        layer="model_1/max_pooling2d_3/MaxPool:0",
    )
    rng = np.random.default_rng(0)
    right, seen, chance = [], [], []
    for kind in SHAPES:
        for colour in COLOURS:
            picture, mask = shape(kind, colour, rng)
            asked = {
                f"What color is the {kind}?": colour,
                "what shape is present?": kind,
                f"is there a {colour} shape?": "yes",
                f"is no {kind} present?": "no",
            }
            for question, answer in asked.items():
                [found] = explainer.explain(picture, inputs={"input_2": question})
                right.append(found.label == answer)
                x, y = np.array(found.peak, int)  # a place of the map is 8 pixels wide
                seen.append(mask[y, x])
                chance.append(mask.mean())
    assert np.mean(right) > 0.9
    assert np.mean(seen) > 0.8 > 5 * np.mean(chance)


def field(ball: tuple[float, float], paddle: float) -> np.ndarray:
    """Pong's field, 160x160: the policy plays on the right."""
    found = np.empty((160, 160, 3), np.uint8)
    found[:] = (144, 72, 17)
    top, (x, y) = round(paddle), map(round, ball)
    found[70:86, 16:20] = (213, 130, 74)
    found[top : top + 16, 140:144] = (92, 186, 92)
    found[y : y + 4, x : x + 2] = (236, 236, 236)
    return found


def test_a_policy_looks_at_the_ball_and_its_paddle() -> None:
    """Frame by frame, with the state carried on; places drawn at random are near them less often."""
    model = shared("models", "pong-policy-a3c.onnx")
    explainer = onnxcam.Explainer(model, preprocess=EXAMPLES / "pong.toml", layer=-1)
    session, rng = runtime(model), np.random.default_rng(0)
    near = []
    for _ in range(6):
        state = np.zeros((1, 256), np.float32)
        ball, paddle = np.array([30.0, rng.uniform(40, 120)]), rng.uniform(20, 120)
        speed = np.array([8.0, rng.uniform(-4, 4)])
        for number in range(12):
            frame = field(tuple(ball), paddle)
            tensor, _ = explainer.preprocess.apply(frame, "NCHW", "float32")
            logits, following = session.run(
                ["action_logits", "h_out"], {"frame": tensor, "h_in": state}
            )
            [found] = explainer.explain(Image.fromarray(frame), inputs={"h_in": state})
            assert found.target == logits[0].argmax()
            assert found.score == pytest.approx(logits[0].max(), rel=1e-4)
            if number > 2 and found.peak is not None:
                things = [ball + 2, np.array([142, paddle + 8])]
                places = [np.array(found.peak), rng.uniform(0, 160, 2)]
                near.append([min(np.linalg.norm(p - t) for t in things) < 24 for p in places])
            state, ball = following, ball + speed
    peak, chance = np.mean(near, axis=0)
    assert peak > 0.8 > 5 * chance
