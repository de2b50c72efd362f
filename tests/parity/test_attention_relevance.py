"""AttnLRP against the rules of its authors' package, lxt, on transformers written out."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
package = pytest.importorskip("lxt", reason="lxt is not installed")

from .seeded import close  # noqa: E402
from .vits import KINDS, Block, Norm, Rules, Transformer, transformer  # noqa: E402

# Its rules alone: the package around them needs Hugging Face's transformers.
SPEC = importlib.util.spec_from_file_location(
    "lxt_rules", Path(package.__file__).parent / "efficient" / "rules.py"
)
assert SPEC is not None and SPEC.loader is not None
lxt = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lxt)


@pytest.fixture(params=KINDS)
def vit(request) -> Transformer:
    return transformer(request.param)


class Lxts(Rules):
    def activation(self, f, x: torch.Tensor) -> torch.Tensor:
        return lxt.identity_rule_implicit(f, x)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        return lxt.divide_gradient(x, 2)

    def deviation(self, x: torch.Tensor) -> torch.Tensor:
        return lxt.stop_gradient(x)


def test_attn_lrp_equals_lxts(vit: Transformer) -> None:
    for block in vit.model.modules():
        if isinstance(block, Block):
            block.attention = None  # of an earlier run, part of whose graph it is
    model = copy.deepcopy(vit.model)
    for module in model.modules():
        if isinstance(module, Norm | Block):
            module.rules = Lxts()
    images = vit.images.clone().requires_grad_()
    [g] = torch.autograd.grad(model(images)[:, vit.target].sum(), images)
    ours = vit.ours("attn-lrp")
    close(ours, (g * images).detach().numpy())
    plain = vit.ours("input-x-gradient")
    assert np.abs(ours / np.abs(ours).max() - plain / np.abs(plain).max()).max() > 0.05
