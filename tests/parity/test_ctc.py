"""CTC's log-likelihood and its gradient, by PyTorch's ctc_loss."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcam.targets.ctc import log_likelihood, steps_needed

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("seed", range(6))
def test_likelihood_and_gradient_by_torch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps, classes = int(rng.integers(8, 60)), int(rng.integers(3, 100))
    blank = int(rng.choice([0, classes - 1, classes // 2]))
    others = [c for c in range(classes) if c != blank]
    text = rng.choice(others, size=int(rng.integers(1, steps // 2))).tolist()
    assert steps_needed(text) <= steps
    logits = rng.normal(size=(steps, classes)) * 3
    tensor = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.ctc_loss(
        tensor.log_softmax(-1)[:, None],
        torch.tensor([text]),
        torch.tensor([steps]),
        torch.tensor([len(text)]),
        blank=blank,
        reduction="sum",
    )
    loss.backward()
    number, gradient = log_likelihood(logits, text, blank)
    assert number == pytest.approx(-loss.item(), rel=1e-10)
    np.testing.assert_allclose(gradient, -tensor.grad.numpy(), rtol=0, atol=1e-10)
