"""Detectors as Ultralytics exports them with ``dynamic=True``; seeded weights, no torch.

Two scales, of strides 8 and 16; ``output0`` is ``[N, 4 + C + E, A]``: centre and size in pixels,
probabilities, and of every box ``E`` further numbers: keypoints ``x, y, visible``, or the
coefficients of masks, whose prototypes are ``output1``, ``[N, M, H / 4, W / 4]``.
"""

from __future__ import annotations

import numpy as np
import onnx

from .conftest import parse

STRIDES = (8, 16)
_CHANNELS = 8


def yolo(
    task: str = "detect", labels: tuple[str, ...] = ("cup", "hat", "cat"), extra: int = 0
) -> onnx.ModelProto:
    """Return a model of a task: ``detect``, ``pose`` (``extra`` a multiple of 3) or ``segment``."""
    rng = np.random.default_rng(21)
    classes, k = len(labels), _CHANNELS

    def kernel(after: int, before: int, size: int, gain: float = 1.6) -> np.ndarray:
        made = rng.normal(size=(after, before, size, size)) * gain / (size * before**0.5)
        return made.astype(np.float32)

    weights = {
        "w1": kernel(k, 3, 3),
        "w2": kernel(k, k, 3),
        "w3": kernel(k, k, 3),
        "w4": kernel(k, k, 3),
        "parts": np.array([4, classes] + [extra] * bool(extra), np.int64),
        "pairs": np.array([2, 2], np.int64),
        "rare": np.full(classes, -3 if classes > 1 else -1, np.float32),
        "rows": np.array([0, 4 + classes + extra, -1], np.int64),
        "two": np.array([0, 2, -1], np.int64),
        "lone": np.array([0, 1, -1], np.int64),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "axis_y": np.array(2, np.int64),
        "axis_x": np.array(3, np.int64),
        "half": np.array(0.5, np.float32),
    }
    scales = ""
    for n, stride in enumerate(STRIDES):
        for part, count in (("b", 4), ("c", classes), ("e", extra)):
            weights[f"{part}{n}a"] = kernel(k, k, 3)
            weights[f"{part}{n}b"] = kernel(max(count, 1), k, 1, 6 if part == "c" else 1)
        weights[f"stride{n}"] = np.array(stride, np.float32)
        more = f"e{n}x = Conv <pads=[1,1,1,1]> (p{n}, e{n}a)  e{n}y = Relu (e{n}x)  e{n} = Conv (e{n}y, e{n}b)"
        scales += f"""
            b{n}x = Conv <pads=[1,1,1,1]> (p{n}, b{n}a)  b{n}y = Relu (b{n}x)  b{n} = Conv (b{n}y, b{n}b)
            c{n}x = Conv <pads=[1,1,1,1]> (p{n}, c{n}a)  c{n}y = Relu (c{n}x)  c{n} = Conv (c{n}y, c{n}b, rare)
            {more if extra else ""}
            all{n} = Concat <axis=1> (b{n}, c{n}{f", e{n}" if extra else ""})
            flat{n} = Reshape (all{n}, rows)
            one{n} = Slice (p{n}, first, second, second)
            shape{n} = Shape (one{n})
            ones{n} = ConstantOfShape <value = float[1] {{1.0}}> (shape{n})
            x{n} = CumSum (ones{n}, axis_x)
            y{n} = CumSum (ones{n}, axis_y)
            xy{n} = Concat <axis=1> (x{n}, y{n})
            grid{n} = Reshape (xy{n}, two)
            cells{n} = Sub (grid{n}, half)
            centre{n} = Mul (cells{n}, stride{n})
            steps{n} = Mul (ones{n}, stride{n})
            step{n} = Reshape (steps{n}, lone)
        """
    visible = """
        at = Reshape (rest, points)  place, shown = Split <axis=2> (at, three)
        wide = Mul (place, twice)  stride4 = Unsqueeze (step, second)  far = Mul (wide, stride4)
        centre4 = Unsqueeze (centre, second)  spot = Add (far, centre4)  seen = Sigmoid (shown)
        triple = Concat <axis=2> (spot, seen)  more = Reshape (triple, back)
    """
    ends, last = "", ""
    if task == "pose":
        weights["twice"] = np.array(2, np.float32)
        weights["points"] = np.array([0, extra // 3, 3, -1], np.int64)
        weights["three"] = np.array([2, 1], np.int64)
        weights["back"] = np.array([0, extra, -1], np.int64)
        ends, last = visible, ", more"
    elif task == "segment":
        weights["wm"] = kernel(extra, k, 3)
        ends, last = "output1 = Conv <pads=[1,1,1,1]> (r2, wm)", ", rest"
    unused = () if extra else ("e0a", "e0b", "e1a", "e1b")
    protos = f", float[N,{extra},K,L] output1" if task == "segment" else ""
    model = parse(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,H,W] images) => (float[N,{4 + classes + extra},A] output0{protos}) {{
            s1 = Conv <pads=[1,1,1,1], strides=[2,2]> (images, w1)  r1 = Relu (s1)
            s2 = Conv <pads=[1,1,1,1], strides=[2,2]> (r1, w2)  r2 = Relu (s2)
            s3 = Conv <pads=[1,1,1,1], strides=[2,2]> (r2, w3)  p0 = Relu (s3)
            s4 = Conv <pads=[1,1,1,1], strides=[2,2]> (p0, w4)  p1 = Relu (s4)
            {scales}
            joined = Concat <axis=2> (flat0, flat1)
            centre = Concat <axis=2> (centre0, centre1)
            step = Concat <axis=2> (step0, step1)
            box, logits{", rest" if extra else ""} = Split <axis=1> (joined, parts)
            positive = Softplus (box)
            far_off = Mul (positive, step)
            lt, rb = Split <axis=1> (far_off, pairs)
            low = Sub (centre, lt)
            high = Add (centre, rb)
            both = Add (low, high)
            middle = Mul (both, half)
            size = Sub (high, low)
            scores = Sigmoid (logits)
            {ends}
            output0 = Concat <axis=1> (middle, size, scores{last})
        }}
        """,
        {name: array for name, array in weights.items() if name not in unused},
    )
    metadata = {
        "author": "Ultralytics",
        "task": task,
        "stride": "16",
        "batch": "1",
        "imgsz": "[96, 96]",
        "names": str(dict(enumerate(labels))),
    }
    if task == "pose":
        metadata["kpt_shape"] = f"[{extra // 3}, 3]"
    onnx.helper.set_model_props(model, metadata)
    return model
