"""CTC's log-likelihood and its gradient, by PyTorch's ctc_loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxcam
from onnxcam.targets.ctc import log_likelihood, steps_needed

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch import nn  # noqa: E402

from .test_recurrent import export  # noqa: E402


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


class Reader(nn.Module):
    """A line of text: convolutions, columns read in both directions, log-softmax, steps first."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(),
        )
        self.rnn = nn.LSTM(8, 6, bidirectional=True)
        self.head = nn.Linear(12, 5)

    def after(self, maps: torch.Tensor) -> torch.Tensor:
        columns = maps.mean(dim=2).permute(2, 0, 1)
        return self.head(self.rnn(columns)[0]).log_softmax(-1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.after(self.features(image))


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_the_map_of_a_text_by_torch(exporter: str, tmp_path: Path) -> None:
    """Grad-CAM of -ctc_loss for two images in one batch, each with a text of its own."""
    torch.manual_seed(3)
    model, images = Reader().eval(), torch.randn(2, 1, 12, 28)
    dynamic = ({0: "N"},) if exporter == "torchscript" else ({0: torch.export.Dim("N")},)
    path = export(model, (images,), exporter, tmp_path / "reader.onnx", dynamic)
    texts = [[1, 4, 4], [3, 2]]
    maps = model.features(images).detach().requires_grad_()
    log_p = model.after(maps)
    loss = torch.nn.functional.ctc_loss(
        log_p,
        torch.tensor([c for t in texts for c in t]),
        torch.tensor([len(log_p)] * 2),
        torch.tensor([len(t) for t in texts]),
        reduction="none",
    )
    (-loss.sum()).backward()
    weights = maps.grad.mean(dim=(2, 3), keepdim=True)
    right = (weights * maps).sum(dim=1).detach().numpy()
    explainer = onnxcam.Explainer(path, preprocess={"color": "grey"})
    asked = [[f"text/0:{','.join(map(str, t))}"] for t in texts]
    found = explainer.explain_batch(images.numpy(), per_image=asked)
    for n, [one] in enumerate(found):
        assert one.score == pytest.approx(-loss[n].item(), rel=1e-4)
        bound = 1e-4 * np.abs(right[n]).max()
        np.testing.assert_allclose(one.signed, right[n], rtol=0, atol=bound)
