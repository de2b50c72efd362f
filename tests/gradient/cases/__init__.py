"""Cases for every gradient rule: shapes, attributes and opsets, away from kinks."""

import os
from importlib import import_module
from pkgutil import iter_modules

from ..finite import Case
from .values import CASES, reseed

for _module in sorted(m.name for m in iter_modules(__path__) if m.name != "values"):
    reseed(_module)
    import_module(f"{__name__}.{_module}")


def _way(case: Case) -> tuple[object, ...]:
    return case.domain, case.op, case.opset > 17, len(case.inputs), *sorted(case.attributes)


# One case for each way to write a node. The second and third form of a gradient are swept over
# all cases only on request: they share the rules, and one form of them is always tried on all.
SAMPLED = list({_way(c): c for c in reversed(CASES)}.values())[::-1]
SWEPT = CASES if "ONNXCAM_TEST_ALL" in os.environ else SAMPLED

__all__ = ["CASES", "SAMPLED", "SWEPT"]
