"""Cases for Fourier transforms."""

from __future__ import annotations

import numpy as np

from .values import case, positive, weight

L = {"linear": True}  # the reference evaluator knows no one-sided inverse

for opset, axis in ((17, {"axis": 1}), (19, {"axis": 1}), (20, {}), (26, {})):
    for parts in (1, 2):
        for n in (5, 6):
            x = weight(2, n, parts)
            case("DFT", x, **axis, opset=opset, dynamic=(0, 1), **L)
            case("DFT", x, np.array(8), **axis, opset=opset, inverse=1, dynamic=(0, 1), **L)
            case("DFT", x, np.array(3), **axis, opset=opset, dynamic=(0,), **L)
            case("DFT", x, np.array(4), **axis, opset=opset, inverse=1, dynamic=(0,), **L)
            case("DFT", x, np.array(8, np.int32), **axis, opset=opset, fed=(1,), dynamic=(1,), **L)
            settings = {"onesided": 1, **axis, "opset": opset, **L}
            if parts == 2:
                case("DFT", x, **settings, inverse=1, dynamic=(0, 1, 2))
                case("DFT", x, np.array(2 * n - 1), **settings, inverse=1, dynamic=(0,))
                continue
            case("DFT", x, **settings, dynamic=(0, 1, 2))
            case("DFT", x, np.array(n + 1), **settings, dynamic=(0, 1))
            case("DFT", x, np.array(4), **settings, fed=(1,), dynamic=(0, 1))
case("DFT", weight(2, 3, 4, 5, 1), axis=-3, onesided=1, dynamic=(0, 1, 2, 3), **L)
case("DFT", weight(2, 3, 4, 5, 2), None, np.array(-4), opset=20, dynamic=(0, 1, 2, 3), **L)
case("DFT", weight(2, 4, 5, 1), None, np.array(1), onesided=1, opset=21, **L)

for opset in (17, 20, 26):
    step, window = np.array(3), positive(6)
    for sides in (0, 1):
        settings = {"onesided": sides, "opset": opset, **L}
        case("STFT", weight(2, 16, 1), step, window, **settings, wrt=(0, 2), dynamic=(0,))
        case("STFT", weight(2, 16, 1), step, None, np.array(5), **settings)
        case("STFT", weight(2, 17, 1), step, window, np.array(6), **settings, fed=(1, 3))
    case("STFT", weight(2, 16, 2), step, window, onesided=0, opset=opset, dynamic=(0,), **L)
