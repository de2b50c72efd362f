"""The overrides that a user can name."""

from __future__ import annotations

from onnxcam.errors import EngineError
from onnxcam.gradient.overrides.base import Override
from onnxcam.gradient.overrides.excitation import Excitation
from onnxcam.gradient.overrides.rectifiers import Deconvnet, Guided

STANDARD = "standard"  # the derivative, nothing laid over it
_ALL: tuple[Override, ...] = (Guided(), Guided("guided-wide", wide=True), Deconvnet())
_ALL += (Excitation(), Excitation("excitation-dual", dual=True))
_NAMED: dict[str, Override] = {o.name: o for o in _ALL}
POLICIES = (STANDARD, *_NAMED)


def find_policy(policy: str | Override) -> tuple[Override, ...]:
    """Return the overrides of a policy, by its name or as an override itself.

    Raises:
        EngineError: there is none of that name.
    """
    if not isinstance(policy, str):
        return (policy,)
    if policy == STANDARD:
        return ()
    if policy not in _NAMED:
        raise EngineError(f"policy '{policy}': choose one of {', '.join(POLICIES)}.")
    return (_NAMED[policy],)
