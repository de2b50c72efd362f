"""A policy plays Pong: what it looks at when it chooses an action.

    pip install ale-py
    python examples/pong.py pong-policy-a3c.onnx [--steps 2500] [--out pong-out]

The policy (baby-a3c, Apache-2.0) has a recurrent state: what it gives for one frame it is fed with
the next one. The game goes on until one side has 21 points. Of every fifth frame the action that was
chosen is explained, with the state the policy had then. Written are:

* `filmstrip.png`: frames before the first point, and where the policy looked;
* `frame-N.png` and `state-N.npy` of each of them, for the command line;
* on the terminal, how often the map's peak lies near the ball or the policy's paddle (on the right), and what
  hiding the place does to the action's probability, both beside places drawn at random.

ale-py is GPL and brings the game's ROM along; neither comes with onnxcam.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
from ale_py import ALEInterface, LoggerMode, roms
from PIL import Image

import onnxcam
from onnxcam.imaging.sheets import sheet

CARD = Path(__file__).with_name("pong.toml")
FIELD = slice(35, 195)  # the rows between the walls
BALL, PADDLE, GROUND = (236, 236, 236), (92, 186, 92), (144, 72, 17)
SKIP = 4  # frames of the game for one of the policy
EVERY = 5
NEAR = 16  # pixels, a tenth of the field
FRAMES = 6


class Step(NamedTuple):
    """A frame as the policy saw it, the state it had, and what it did."""

    number: int
    field: np.ndarray
    state: np.ndarray
    action: int
    reward: float


class Policy:
    """The network, run frame by frame."""

    def __init__(self, model: str, preprocess: onnxcam.Preprocess) -> None:
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.preprocess = preprocess

    def __call__(self, field: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the actions' log-probabilities and the next state."""
        frame, _ = self.preprocess.apply(field, "NCHW", "float32")
        wanted = ["action_logits", "h_out"]
        logits, state = self.session.run(wanted, {"frame": frame, "h_in": state})
        return logits[0] - np.log(np.exp(logits[0]).sum()), state


def play(policy: Policy, steps: int) -> Iterator[Step]:
    """Play one game, always by the likeliest action."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    game = ALEInterface()
    game.setInt("random_seed", 0)
    game.setFloat("repeat_action_probability", 0)
    game.loadROM(roms.get_rom_path("pong"))
    actions = game.getMinimalActionSet()
    state = np.zeros((1, 256), np.float32)
    for number in range(steps):
        if game.game_over():
            return
        field = game.getScreenRGB()[FIELD]
        chances, following = policy(field, state)
        action = int(chances.argmax())
        reward = sum(game.act(actions[action]) for _ in range(SKIP))
        yield Step(number, field, state, action, reward)
        state = following


def distance(field: np.ndarray, colour: tuple[int, int, int], place: np.ndarray) -> float:
    """How far the nearest pixel of a colour is."""
    found = np.argwhere((field == colour).all(axis=-1))[:, ::-1]
    return float(np.linalg.norm(found - place, axis=1).min()) if len(found) else np.inf


def hidden(field: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The field without what is near a place."""
    rows, columns = np.ogrid[: len(field), : len(field[0])]
    away = np.maximum(abs(columns - place[0]), abs(rows - place[1])) > NEAR
    return np.where(away[..., None], field, np.array(GROUND, np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--out", type=Path, default=Path("pong-out"))
    # The last layer has 5x5 places, the one before 10x10.
    parser.add_argument("--layer", type=int, default=-1)
    options = parser.parse_args()
    explainer = onnxcam.Explainer(options.model, preprocess=CARD, layer=options.layer)
    policy = Policy(options.model, explainer.preprocess)
    options.out.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    points = [0, 0]
    strip: list[tuple[Step, onnxcam.Explanation]] = []
    near, drops = [], []
    for step in play(policy, options.steps):
        if step.reward:
            points[step.reward < 0] += 1
        if step.number % EVERY or distance(step.field, BALL, np.zeros(2)) == np.inf:
            continue
        [found] = explainer.explain(
            Image.fromarray(step.field), step.action, inputs={"h_in": step.state}
        )
        if found.peak is None:
            continue
        if not any(points):
            strip = [*strip, (step, found)][-FRAMES:]
        places = [np.array(found.peak), draw.uniform(0, len(step.field), 2)]
        near.append([[distance(step.field, c, p) for c in (BALL, PADDLE)] for p in places])
        whole = policy(step.field, step.state)[0][step.action]
        drops.append(
            [whole - policy(hidden(step.field, p), step.state)[0][step.action] for p in places]
        )
    print(f"{points[0]}:{points[1]} points in {step.number + 1} steps, {len(near)} explained")
    print(f"layer {explainer.plan.layer}; near: within {NEAR} of {len(step.field)} pixels")
    for row, name in enumerate(("peak", "random")):
        close = np.array(near)[:, row] <= NEAR
        ball, paddle = close.mean(axis=0)
        lost = np.array(drops)[:, row].mean()
        print(
            f"{name:<7} ball {ball:.2f}, paddle {paddle:.2f}, either {close.any(axis=1).mean():.2f}; "
            f"log p of the action drops by {lost:.2f} without it"
        )
    save(strip, options)


def save(strip: list[tuple[Step, onnxcam.Explanation]], options: argparse.Namespace) -> None:
    """Write the filmstrip, and what the command line takes to make its pictures again."""
    out, row = options.out, []
    for step, found in strip:
        Image.fromarray(step.field).save(out / f"frame-{step.number}.png")
        np.save(out / f"state-{step.number}.npy", step.state)
        row.append((f"{step.number}: {found.label}", found.overlay()))
    sheet([row]).save(out / "filmstrip.png")
    print(f"{out / 'filmstrip.png'}; its last frame at the command line:")
    print(
        f"onnxcam explain {out}/frame-{step.number}.png -m {options.model} --preprocess {CARD} "
        f"--layer {options.layer} --input h_in={out}/state-{step.number}.npy"
    )


if __name__ == "__main__":
    main()
