"""Cases for the rules that classifiers need."""

from __future__ import annotations

import numpy as np

from .values import away, case, distinct, i64, positive, rng, weight

# --- elementwise, one operand
X = (2, 3, 4)
for op, x in {
    "Identity": weight(*X),
    "Neg": weight(*X),
    "Abs": away(*X),
    "Reciprocal": positive(*X),
    "Exp": weight(*X),
    "Log": positive(*X),
    "Sqrt": positive(*X),
    "Sin": weight(*X),
    "Cos": weight(*X),
    "Erf": weight(*X),
    "Relu": away(*X),
    "Sigmoid": weight(*X),
    "Tanh": weight(*X),
    "Softplus": weight(*X),
    "Softsign": weight(*X),
    "HardSigmoid": away(*X, kinks=(-2.5, 2.5)),
    "HardSwish": away(*X, kinks=(-3.0, 3.0), spread=2.5),
    "Elu": away(*X),
    "Selu": away(*X),
    "Celu": away(*X),
    "LeakyRelu": away(*X),
    "ThresholdedRelu": away(*X, kinks=(1.0,)),
    "Dropout": weight(*X),
}.items():
    case(op, x)
    case(op, x[0, 0])
case("Elu", away(3, 5), alpha=0.4)
case("Selu", away(3, 5), alpha=1.2, gamma=0.7)
case("Celu", away(3, 5), alpha=0.6)
case("LeakyRelu", away(3, 5), alpha=0.3)
case("HardSigmoid", away(3, 5, kinks=(-1.5, 0.5)), alpha=0.5, beta=0.75)
case("Mish", weight(*X), opset=18)
case("Gelu", weight(*X), opset=20)
case("Gelu", weight(*X), opset=20, approximate="tanh")
case("Cast", weight(*X), to=1, linear=True)
case("Clip", away(*X, kinks=(-0.5, 1.0)), np.float32(-0.5), np.float32(1.0))
case("Clip", away(*X, kinks=(-0.5,)), np.float32(-0.5))
case("Clip", away(*X, kinks=(1.0,)), None, np.float32(1.0))
case("Clip", away(*X))
case("PRelu", away(2, 3, 4), positive(3, 1), wrt=(0, 1))
case("PRelu", away(2, 3, 4), positive(1), wrt=(0, 1), dynamic=None)

# --- elementwise, several operands, broadcast in every direction
PAIRS = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 1)), ((4,), (2, 3, 4)), ((2, 1, 4), (3, 1))]
for op in ("Add", "Sub", "Mul", "Div"):
    for a, b in PAIRS:
        case(op, positive(*a), positive(*b), wrt=(0, 1), dynamic=None)
    case(op, positive(2, 3, 4, 5), positive(3, 1, 1))
case("Add", weight(1, 3), weight(2, 3), wrt=(0, 1), dynamic=(0,))
case("Pow", positive(2, 3), positive(2, 3), wrt=(0, 1), dynamic=(0,))
case("Pow", positive(2, 3, 2), np.array(3.0))
case("Pow", weight(2, 3), np.array(2.0))
case("Sum", weight(2, 3, 4), weight(3, 1), weight(4), wrt=(0, 1, 2), dynamic=None)
case("Sum", weight(2, 3), wrt=(0,))
case("Mean", weight(2, 3, 4), weight(3, 1), wrt=(0, 1), dynamic=None)
for op in ("Max", "Min"):
    D = distinct(3, 2, 3, 4)
    case(op, *D, wrt=(0, 1, 2), dynamic=(0, 2))
    case(op, D[0], D[1, :1, :, :1], wrt=(0, 1), dynamic=None)
CONDITION = rng.integers(0, 2, (2, 3, 4)).astype(bool)
case("Where", CONDITION, weight(2, 3, 4), weight(3, 1), wrt=(1, 2), dynamic=None)

# --- shapes
case("Reshape", weight(2, 3, 4), i64(2, 12))
case("Reshape", weight(2, 3, 4), i64(0, -1))
case("Squeeze", weight(2, 1, 4, 1), i64(1, 3), dynamic=(0, 2))
case("Unsqueeze", weight(2, 4), i64(0, 3), dynamic=(0,))
case("Flatten", weight(2, 3, 4), axis=1)
case("Flatten", weight(2, 3, 4, 2), axis=2)
case("Flatten", weight(2, 3, 4), axis=-1)
case("Transpose", weight(2, 3, 4), perm=[1, 2, 0])
case("Transpose", weight(2, 3, 4))
case("Expand", weight(3, 1), i64(2, 3, 4), dynamic=None)
case("Expand", weight(2, 3, 1), i64(2, 1, 4), dynamic=None)
case("Concat", weight(2, 3, 2), weight(2, 1, 2), weight(2, 2, 2), wrt=(0, 1, 2), axis=1)
case("Concat", weight(2, 3), weight(2, 4), wrt=(1,), axis=-1, dynamic=(0, 1))
case("Concat", weight(2, 3), weight(4, 3), wrt=(0, 1), axis=0, dynamic=None)
case("Slice", weight(4, 5), i64(1), i64(3), i64(1))
case("Slice", weight(4, 6), i64(0, 1), i64(9, -1), i64(0, 1), i64(2, 2), dynamic=None)
case("Slice", weight(4, 6), i64(-1), i64(-100), i64(1), i64(-2), dynamic=(0,))
case("Slice", weight(4, 6), i64(1, 2), i64(4, 5), dynamic=None)
case("Gather", weight(3, 5), np.array(2), axis=1)
case("Gather", weight(3, 5, 2), i64(1, 1, 4), axis=1)
case("Gather", weight(5, 2), np.array([[0, 3], [3, 1]]), axis=0)
case("Gather", weight(3, 5), i64(-1, 0), axis=-1)
case("Pad", weight(2, 3, 4), i64(0, 1, 2, 0, 0, 1), np.array(0.5))
case("Pad", weight(2, 3, 4), i64(0, 0, 2, 0, 0, 0))
case("Pad", weight(2, 3, 4), i64(0, 0, -1, 0, 0, -1), dynamic=(0,), linear=True)
case("Pad", weight(2, 3, 4), i64(1, 1), np.array(0.0), i64(-1), opset=18)
case("DepthToSpace", weight(2, 8, 2, 3), blocksize=2, dynamic=(0,))
case("DepthToSpace", weight(2, 8, 2, 3), blocksize=2, mode="CRD", dynamic=(0,))
case("SpaceToDepth", weight(2, 2, 4, 6), blocksize=2, dynamic=(0,))
case("Split", weight(2, 6), i64(2, 4), axis=1, outputs=2)

# --- matrix products and reductions
case("MatMul", weight(3, 4), weight(4, 5), wrt=(0, 1), dynamic=None)
case("MatMul", weight(2, 3, 4), weight(4, 5))
case("MatMul", weight(2, 3, 4), weight(2, 4, 5), wrt=(0, 1), dynamic=None)
case("MatMul", weight(2, 1, 3, 4), weight(3, 4, 2), wrt=(0, 1), dynamic=None)
case("MatMul", weight(4), weight(4), wrt=(0, 1), dynamic=None)
case("MatMul", weight(4), weight(2, 4, 3), wrt=(0, 1), dynamic=None)
case("MatMul", weight(2, 3, 4), weight(4), wrt=(0, 1), dynamic=None)
case("Gemm", weight(3, 4), weight(4, 5), weight(5), wrt=(0, 1, 2), dynamic=None)
case("Gemm", weight(3, 4), weight(5, 4), weight(3, 1), transB=1, alpha=0.5, beta=2.0)
case(
    "Gemm",
    weight(4, 3),
    weight(5, 4),
    np.array(0.3),
    wrt=(0, 1, 2),
    transA=1,
    transB=1,
    alpha=0.5,
    beta=2.0,
    dynamic=None,
)
for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"):
    for keep in (0, 1):
        if op == "ReduceSum":
            case(op, distinct(2, 3, 4), i64(1, -1), keepdims=keep)
        else:
            case(op, distinct(2, 3, 4), axes=[1, -1], keepdims=keep)
            case(op, distinct(2, 3, 4), i64(-1), keepdims=keep, opset=18)
    case(op, distinct(2, 3), keepdims=0)
for op in ("Softmax", "LogSoftmax"):
    case(op, weight(2, 5))
    case(op, weight(2, 3, 4), axis=1)
    case(op, weight(2, 3, 4), axis=0)

# --- convolutions; linear, should an older reference evaluator not know the pads
case("Conv", weight(2, 3, 7, 6), weight(4, 3, 3, 3), pads=[1, 1, 1, 1], linear=True)
case("Conv", weight(2, 3, 7, 6), weight(4, 3, 3, 2), weight(4), pads=[0, 1, 2, 0], linear=True)
case("Conv", weight(2, 3, 8, 7), weight(4, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2], linear=True)
case("Conv", weight(1, 3, 9, 7), weight(2, 3, 3, 3), pads=[1, 0, 0, 2], strides=[3, 2], linear=True)
case("Conv", weight(2, 4, 6, 6), weight(4, 1, 3, 3), pads=[1, 1, 1, 1], group=4, linear=True)
case("Conv", weight(2, 4, 7, 6), weight(6, 2, 3, 3), group=2, strides=[2, 1], linear=True)
case("Conv", weight(2, 4, 6, 6), weight(6, 2, 3, 3), group=2, pads=[1, 1, 1, 1], linear=True)
case("Conv", weight(2, 4, 6, 6), weight(8, 1, 3, 3), group=4, pads=[1, 1, 1, 1], linear=True)
case(
    "Conv", weight(1, 2, 9, 9), weight(3, 2, 3, 3), dilations=[2, 2], pads=[2, 2, 2, 2], linear=True
)
case("Conv", weight(1, 2, 9, 8), weight(3, 2, 3, 3), dilations=[2, 1], strides=[2, 2], linear=True)
case("Conv", weight(2, 3, 5, 5), weight(4, 3, 1, 1), linear=True)
case("Conv", weight(2, 3, 5, 5), weight(4, 3, 1, 1), strides=[2, 2], linear=True)
case("Conv", weight(1, 3, 5, 5), weight(4, 3, 1, 1), pads=[1, 1, 1, 1], linear=True)
case("Conv", weight(2, 3, 7, 6), weight(4, 3, 3, 3), auto_pad="SAME_UPPER", linear=True)
case(
    "Conv",
    weight(2, 3, 7, 8),
    weight(4, 3, 3, 3),
    auto_pad="SAME_UPPER",
    strides=[2, 2],
    linear=True,
)
case(
    "Conv",
    weight(2, 3, 7, 8),
    weight(4, 3, 4, 4),
    auto_pad="SAME_LOWER",
    strides=[2, 2],
    linear=True,
)
case("Conv", weight(2, 3, 7, 8), weight(4, 3, 4, 4), auto_pad="SAME_LOWER", linear=True)
case("Conv", weight(2, 3, 7, 8), weight(4, 3, 3, 3), auto_pad="VALID", strides=[2, 2], linear=True)
case("Conv", weight(1, 2, 6, 6), weight(2, 2, 2, 2), strides=[3, 3], linear=True)
case("Conv", weight(2, 3, 8), weight(4, 3, 3), pads=[1, 1], strides=[2], linear=True)
case("Conv", weight(1, 2, 4, 5, 4), weight(3, 2, 2, 3, 2), pads=[0, 1, 0, 1, 1, 0], linear=True)
case("Conv", weight(1, 2, 5, 5, 4), weight(3, 2, 2, 3, 2), strides=[2, 2, 1], linear=True)
T = {"linear": True}
case("ConvTranspose", weight(2, 3, 4, 5), weight(3, 2, 3, 3), **T)
case("ConvTranspose", weight(2, 3, 4, 5), weight(3, 2, 3, 3), strides=[2, 2], pads=[1] * 4, **T)
case(
    "ConvTranspose",
    weight(2, 4, 4, 5),
    weight(4, 2, 3, 3),
    group=2,
    strides=[2, 2],
    output_padding=[1, 1],
    **T,
)

# --- pooling
case("MaxPool", distinct(2, 3, 6, 6), kernel_shape=[2, 2], strides=[2, 2])
case("MaxPool", distinct(2, 3, 7, 7), kernel_shape=[3, 3], strides=[2, 2])
case("MaxPool", distinct(1, 2, 7, 7), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
case("MaxPool", distinct(1, 2, 6, 6), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
case("MaxPool", distinct(1, 2, 7, 6), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
case("MaxPool", distinct(1, 2, 8, 8), kernel_shape=[2, 2], dilations=[2, 2])
case("MaxPool", distinct(2, 3, 9), kernel_shape=[3], strides=[2])
case("MaxPool", distinct(1, 2, 4, 4, 4), kernel_shape=[2, 2, 2], strides=[2, 2, 2])
P = {"linear": True}
case("AveragePool", weight(2, 3, 7, 7), kernel_shape=[7, 7], **P)
case("AveragePool", weight(2, 3, 6, 7), kernel_shape=[2, 3], strides=[2, 2], **P)
case("AveragePool", weight(2, 3, 6, 6), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, **P)
case(
    "AveragePool",
    weight(2, 3, 6, 6),
    kernel_shape=[3, 3],
    strides=[2, 2],
    pads=[1] * 4,
    count_include_pad=1,
    **P,
)
case("AveragePool", weight(1, 2, 6, 6), kernel_shape=[7, 7], pads=[0, 0, 1, 1], **P)
for include in (0, 1):
    case(
        "AveragePool",
        weight(1, 2, 8, 8),
        kernel_shape=[3, 3],
        strides=[2, 2],
        ceil_mode=1,
        pads=[1] * 4,
        count_include_pad=include,
        dynamic=(0,),
        opset=19,
        **P,
    )
case(
    "AveragePool",
    weight(1, 2, 7, 6),
    kernel_shape=[3, 3],
    strides=[2, 2],
    auto_pad="SAME_UPPER",
    dynamic=(0,),
    **P,
)
case("AveragePool", weight(2, 3, 9), kernel_shape=[3], strides=[2], **P)
case("GlobalAveragePool", weight(2, 3, 4, 5))
case("GlobalAveragePool", weight(2, 3, 6))
case("GlobalMaxPool", distinct(2, 3, 4, 5))

# --- normalisation
STATISTICS = (weight(3), weight(3), weight(3), positive(3))
case("BatchNormalization", weight(2, 3, 4, 4), *STATISTICS)
case("BatchNormalization", weight(2, 3), *STATISTICS, epsilon=0.01)
case("BatchNormalization", weight(2, 3, 4, 4), *STATISTICS, opset=13, linear=True)
case("LayerNormalization", weight(2, 3, 6), weight(6), weight(6), dynamic=(0, 1))
case("LayerNormalization", weight(2, 3, 6), weight(3, 6), axis=1, epsilon=0.01, dynamic=(0,))
case("InstanceNormalization", weight(2, 3, 4, 4), weight(3), weight(3))


def lrn(x: np.ndarray, size: int, alpha: float, beta: float, bias: float = 1.0) -> np.ndarray:
    y = np.empty_like(x)
    for k in range(x.shape[1]):
        near = x[:, max(0, k - (size - 1) // 2) : k + size // 2 + 1]
        y[:, k] = x[:, k] / (bias + alpha / size * (near**2).sum(axis=1)) ** beta
    return y


case("LRN", weight(2, 7, 3, 3), size=5, alpha=0.5, beta=0.75, bias=2.0, obvious=lrn)
case("LRN", weight(2, 4, 3, 2), size=3, alpha=0.5, beta=0.6, obvious=lrn)
