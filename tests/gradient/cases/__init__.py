"""Cases for every gradient rule: shapes, attributes and opsets, away from kinks."""

from importlib import import_module
from pkgutil import iter_modules

from .values import CASES, reseed

for _module in sorted(m.name for m in iter_modules(__path__) if m.name != "values"):
    reseed(_module)
    import_module(f"{__name__}.{_module}")

__all__ = ["CASES"]
