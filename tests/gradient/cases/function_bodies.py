"""Cases for operators of the standard that are differentiated through their function bodies."""

from __future__ import annotations

from functools import partial

import numpy as np

from .contrib_attention import COS, POSITIONS, SIN
from .values import case, weight

for opset in (23, 24, 25, 26):
    case("Attention", weight(2, 2, 3, 4), weight(2, 2, 5, 4), weight(2, 2, 5, 6), wrt=(0, 1, 2),
         opset=opset, dynamic=None)  # fmt: skip
standard = partial(case, "Attention", opset=24, dynamic=None)
four = weight(2, 2, 3, 4), weight(2, 2, 5, 4), weight(2, 2, 5, 4)
standard(*four, is_causal=1)
standard(*four, scale=0.3, softcap=2.0)
standard(*four, weight(3, 5), wrt=(0, 1, 2, 3))
standard(*four, np.tril(np.ones((3, 5), bool), 2))
standard(weight(2, 3, 8), weight(2, 5, 8), weight(2, 5, 8), q_num_heads=2, kv_num_heads=2)
standard(weight(2, 4, 3, 4), *four[1:], wrt=(0, 1, 2))
case("RotaryEmbedding", weight(2, 2, 3, 4), COS, SIN, POSITIONS, opset=23, dynamic=None)
case("RotaryEmbedding", weight(2, 3, 8), COS, SIN, POSITIONS, opset=24, num_heads=2, interleaved=1,
     dynamic=None)  # fmt: skip
case("RotaryEmbedding", weight(2, 2, 3, 6), COS, SIN, POSITIONS, opset=24, rotary_embedding_dim=4,
     dynamic=None)  # fmt: skip
