"""One table of the traits of operators, those of ONNX Runtime (``com.microsoft``) included.

A new operator needs a rule, a case of the rule, and a row here.
"""

from __future__ import annotations

from enum import Flag, auto

import onnx_ir as ir

RUNTIME_DOMAINS = ("", "com.microsoft")


class Trait(Flag):
    """What is true of an operator."""

    CONVOLUTION = auto()  # computes maps [N, K, *S] with a kernel
    LINEAR = auto()  # multiplies with weights and sums
    AFFINE = auto()  # linear plus a constant; quantizers drop a ReLU after it
    INTEGER_SUM = auto()  # sums products of quantized tensors, to int32
    MIXES = auto()  # one position of its output depends on all positions, as in attention
    SQUASHES = auto()  # turns scores into probabilities
    QUANTIZES = auto()  # quantizes or dequantizes
    FINISHES = auto()  # continues a convolution's maps: activation, normalization, addition, ...
    REARRANGES = auto()  # used by exporters in group normalization or a channel shuffle
    RESHAPES = auto()  # changes the shape, not the order of elements
    PASSES = auto()  # passes its operand on, perhaps converted
    UNIT_SLOPE = auto()  # its derivative is 1, where operand and result have equal sizes
    MOVES = auto()  # moves elements and computes nothing
    ADDS = auto()  # adds its operands
    KEEPS_SCALE = auto()  # its quantized output has its operand's scale and zero point
    POOLS = auto()  # reduces each window or map to one value
    CHANNELWISE = auto()  # an activation that keeps channels apart
    FULL_SHAPE = auto()  # its rule returns the full shape even for a cotangent that broadcasts
    ELEMENTWISE = auto()  # computes each element on its own; operands broadcast
    KEEPS_BLOCKS = auto()  # ONNX Runtime on CPU keeps its blocked layout through it
    INFINITE_SLOPE = auto()  # its derivative may be infinite
    RANDOM = auto()  # draws at random


# operator, traits; scale=i: operand i is its output's scale, the next one the zero point
_TABLE = """
# linear layers
Conv                      convolution linear affine
ConvTranspose             convolution linear affine
ConvInteger               convolution linear integer_sum
DeformConv                convolution linear
FusedConv                 convolution linear
QLinearConv               convolution linear scale=6
Gemm                      linear affine
MatMul                    linear affine
Einsum                    linear
MatMulInteger             linear integer_sum
QLinearMatMul             linear scale=6
FusedGemm                 linear
FusedMatMul               linear
TransposeMatMul           linear
QGemm                     linear scale=7
MatMulIntegerToFloat      linear
DynamicQuantizeMatMul     linear
MatMulNBits               linear
# activations and probabilities
Softmax                   mixes squashes
QLinearSoftmax            mixes squashes scale=3
Attention                 mixes
QAttention                mixes
MultiHeadAttention        mixes
LogSoftmax                squashes
Sigmoid                   squashes finishes channelwise full_shape elementwise keeps_blocks
QLinearSigmoid            squashes finishes scale=3
Relu                      finishes channelwise full_shape elementwise keeps_blocks
LeakyRelu                 finishes channelwise full_shape
PRelu                     finishes
Elu                       finishes
Selu                      finishes
Celu                      finishes
ThresholdedRelu           finishes
HardSigmoid               finishes
HardSwish                 finishes
Tanh                      finishes channelwise full_shape elementwise keeps_blocks
Clip                      finishes channelwise
Softplus                  finishes
Softsign                  finishes
Mish                      finishes
Swish                     finishes
Gelu                      finishes
FastGelu                  finishes
QuickGelu                 finishes
BiasGelu                  finishes
Shrink                    finishes
QLinearLeakyRelu          finishes scale=3
# normalization and pooling
BatchNormalization        affine finishes keeps_blocks
InstanceNormalization     finishes rearranges
GroupNormalization        finishes
LayerNormalization        finishes rearranges
SkipLayerNormalization    finishes
RMSNormalization          finishes
MaxPool                   keeps_scale pools
NhwcMaxPool               keeps_scale
GlobalAveragePool         pools
AveragePool               pools
GlobalMaxPool             pools
LpNormalization           infinite_slope
LpPool                    infinite_slope
GlobalLpPool              infinite_slope
RandomNormal              random
RandomNormalLike          random
QLinearAveragePool        scale=3
QLinearGlobalAveragePool  scale=3
# arithmetic
Add                       affine finishes unit_slope adds elementwise keeps_blocks
Erf                       finishes
Exp                       finishes elementwise
Log                       finishes infinite_slope
Sqrt                      finishes elementwise infinite_slope
Pow                       finishes infinite_slope
Abs                       finishes elementwise
Neg                       finishes elementwise
Reciprocal                finishes elementwise infinite_slope
Sub                       finishes adds elementwise
Mul                       finishes elementwise keeps_blocks
Div                       finishes elementwise
Sum                       finishes adds elementwise keeps_blocks
Mean                      finishes
Max                       finishes
Min                       finishes
Where                     finishes elementwise
QLinearAdd                finishes scale=6
QLinearMul                finishes scale=6
Sign                      elementwise
Acos                      infinite_slope
Asin                      infinite_slope
Acosh                     infinite_slope
Atanh                     infinite_slope
Tan                       infinite_slope
QLinearWhere              scale=7
# reductions and matrices
Det                       infinite_slope
ReduceL2                  infinite_slope
ReduceLogSum              infinite_slope
QLinearReduceMean         scale=3
# elements moved or converted
QuantizeLinear            quantizes finishes scale=1
DequantizeLinear          quantizes finishes
Concat                    finishes moves
Identity                  finishes passes unit_slope moves keeps_scale
Cast                      finishes passes elementwise
Dropout                   finishes passes unit_slope
QLinearConcat             finishes scale=0
Reshape                   rearranges reshapes unit_slope moves keeps_scale
Transpose                 rearranges moves keeps_scale
Squeeze                   reshapes unit_slope moves keeps_scale
Unsqueeze                 reshapes unit_slope moves keeps_scale
Flatten                   reshapes unit_slope moves keeps_scale
Slice                     moves keeps_scale
Split                     moves keeps_scale
Gather                    moves keeps_scale
Expand                    moves keeps_scale
# control flow and chance
If                        infinite_slope
Loop                      infinite_slope
Scan                      infinite_slope
RandomUniform             random
RandomUniformLike         random
Bernoulli                 random
"""


def _parsed() -> tuple[dict[str, Trait], dict[str, int]]:
    traits, scales = {}, {}
    for line in _TABLE.splitlines():
        if not line or line.startswith("#"):
            continue
        name, *words = line.split()
        traits[name] = Trait(0)
        for word in words:
            if word.startswith("scale="):
                scales[name] = int(word.removeprefix("scale="))
            else:
                traits[name] |= Trait[word.upper()]
    return traits, scales


_TRAITS, _SCALES = _parsed()


def has(node: ir.Node | str, trait: Trait) -> bool:
    """Whether an operator, given as a node or by name, has one of these traits."""
    name = node if isinstance(node, str) else node.op_type
    return bool(_TRAITS.get(name, Trait(0)) & trait)


def scale_operand(node: ir.Node) -> int | None:
    """Return the index of the scale of a node's quantized output; the zero point is next."""
    return _SCALES.get(node.op_type)
