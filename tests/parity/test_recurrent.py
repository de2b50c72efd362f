"""Gradients through recurrent layers, loops and branches as PyTorch exports them, against autograd."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch import nn  # noqa: E402

import onnxcam  # noqa: E402

from ..conftest import runtime  # noqa: E402

TIMES, BATCH, INPUT, HIDDEN = 6, 3, 4, 5


class Layer(nn.Module):
    """A recurrent layer that hands out everything it computes."""

    def __init__(self, kind: str, **settings: Any) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(INPUT, HIDDEN, **settings)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """``h`` are the initial states, of an LSTM both."""
        lstm = isinstance(self.layer, nn.LSTM)
        y, last = self.layer(x, (h, torch.tanh(h)) if lstm else h)
        states = last if lstm else (last,)
        return torch.cat([y.flatten(), *(s.flatten() for s in states)])


class Classifier(nn.Module):
    """Rows of a picture, read one after another."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, INPUT, 3, padding=1)
        self.rnn = getattr(nn, kind)(INPUT, HIDDEN, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN, 7)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        rows = torch.relu(self.features(image)).mean(dim=3).transpose(1, 2)
        return self.head(self.rnn(rows)[0][:, -1])


class Packed(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(INPUT, HIDDEN, bidirectional=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=True)
        y, last = self.rnn(packed)
        states = last if isinstance(last, tuple) else (last,)
        padded, _ = nn.utils.rnn.pad_packed_sequence(y)
        return torch.cat([padded.flatten(), *(s.flatten() for s in states)])


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUT, INPUT)

    def forward(self, x: torch.Tensor, count: int) -> torch.Tensor:
        for _ in range(count):
            x = torch.tanh(self.linear(x)) + x
        return x


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUT, INPUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(x)) if x.sum() > 0 else torch.sin(x) * x


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUT, INPUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(
            x.sum() > 0,
            lambda x: torch.tanh(self.linear(x)),
            lambda x: torch.sin(x) * x,
            (x,),
        )


class Scanned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUT, INPUT)

    def forward(self, x: torch.Tensor, xs: torch.Tensor) -> torch.Tensor:
        from torch._higher_order_ops.scan import scan

        last, ys = scan(lambda s, e: (torch.tanh(self.linear(s)) + e, (s * e).clone()), x, xs)
        return torch.cat([last.flatten(), ys.flatten()])


def export(
    model: nn.Module,
    arguments: tuple[Any, ...],
    exporter: str,
    path: Path,
    dynamic: tuple[dict[int, str], ...] | None = None,
) -> Path:
    inputs = [f"x{i}" for i in range(len(arguments))]
    names = {"input_names": inputs, "output_names": ["y"]}
    logging.disable(logging.WARNING)
    quiet = contextlib.redirect_stdout(io.StringIO())
    with warnings.catch_warnings(), quiet, contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            axes = dict(zip(inputs, dynamic, strict=True)) if dynamic else None
            torch.onnx.export(
                model, arguments, str(path), dynamo=False, opset_version=17, dynamic_axes=axes,
                **names,
            )  # fmt: skip
        else:
            torch.onnx.export(
                model, arguments, str(path), dynamo=True, dynamic_shapes=dynamic,
                external_data=False, verbose=False, **names,
            )  # fmt: skip
    logging.disable(logging.NOTSET)
    return path


def compare(model: nn.Module, arguments: tuple[Any, ...], path: Path, bound: float = 2e-5) -> None:
    """Compare the gradients to all floating-point arguments, two cotangents at once."""
    to = [
        f"x{i}"
        for i, a in enumerate(arguments)
        if isinstance(a, torch.Tensor) and a.is_floating_point()
    ]
    made = onnxcam.add_gradients(path, "y", to)
    model = model.double()
    given = [a.double().requires_grad_() if f"x{i}" in to else a for i, a in enumerate(arguments)]
    y = model(*given)
    seeds = torch.randn(2, *y.shape, dtype=torch.float64)
    wanted = [a for i, a in enumerate(given) if f"x{i}" in to]
    rows = [torch.autograd.grad(y, wanted, seed, retain_graph=True) for seed in seeds]
    feeds = {
        f"x{i}": a.detach().float().numpy() if f"x{i}" in to else np.asarray(a)
        for i, a in enumerate(given)
    }
    session = runtime(made)
    feeds = {i.name: feeds[i.name] for i in session.get_inputs() if i.name in feeds}
    names = ["y", *(f"gradient:{n}" for n in to)]
    output, *found = session.run(names, {**feeds, "seed:y": seeds.float().numpy()})
    np.testing.assert_allclose(output, y.detach().numpy(), atol=1e-5)
    for index, (name, g) in enumerate(zip(to, found, strict=True)):
        expected = np.stack([row[index].numpy() for row in rows])
        scale = np.abs(expected).max()
        assert scale > 1e-3
        assert np.abs(g - expected).max() <= bound * scale, name


SETTINGS = [
    {},
    {"bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False},
]
LAYERS = [(kind, s) for kind in ("LSTM", "GRU", "RNN") for s in SETTINGS]
LAYERS += [("RNN", {"nonlinearity": "relu"})]


@pytest.mark.parametrize("lengths", ["fixed", "dynamic"])
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize(("kind", "settings"), LAYERS, ids=str)
def test_layers(
    kind: str, settings: dict[str, Any], exporter: str, lengths: str, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    model = Layer(kind, **settings).eval()
    states = settings.get("num_layers", 1) * (2 if settings.get("bidirectional") else 1)
    first = bool(settings.get("batch_first"))
    axes = ({0: "N", 1: "S"} if first else {0: "S", 1: "N"}, {1: "N"})
    if exporter == "dynamo":  # which fixes the number of times
        axes = ({0: "N"} if first else {1: "N"}, {1: "N"})

    def arguments(times: int, batch: int) -> tuple[torch.Tensor, ...]:
        shape = (batch, times, INPUT) if first else (times, batch, INPUT)
        return torch.randn(shape), torch.randn(states, batch, HIDDEN)

    dynamic = lengths == "dynamic"
    path = tmp_path / "net.onnx"
    export(model, arguments(TIMES, BATCH), exporter, path, axes if dynamic else None)
    compare(model, arguments(TIMES, BATCH), path)
    if dynamic:
        compare(model, arguments(TIMES if exporter == "dynamo" else 2, 2), path)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_classifiers(kind: str, exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model, image = Classifier(kind).eval(), torch.randn(2, 3, 8, 8)
    compare(model, (image,), export(model, (image,), exporter, tmp_path / "net.onnx", ({0: "N"},)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_packed_sequences(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = Packed(kind).eval()
    arguments = (torch.randn(TIMES, BATCH, INPUT), torch.tensor([6, 4, 1]))
    path = export(model, arguments, "torchscript", tmp_path / "net.onnx")
    compare(model, arguments, path)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_loops(count: int, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model, x = torch.jit.script(Repeated().eval()), torch.randn(BATCH, INPUT)
    path = export(model, (x, torch.tensor(3)), "torchscript", tmp_path / "net.onnx")
    compare(model, (x, count), path)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_branches(exporter: str, sign: int, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = torch.jit.script(Scripted().eval()) if exporter == "torchscript" else Conditional()
    x = sign * torch.rand(BATCH, INPUT)
    path = export(model, (x,), exporter, tmp_path / "net.onnx")
    assert any(n.op_type == "If" for n in onnx.load(path).graph.node)
    compare(model, (x,), path)


def test_scans(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = Scanned().eval()
    arguments = (torch.randn(BATCH, INPUT), torch.randn(TIMES, BATCH, INPUT))
    path = export(model, arguments, "dynamo", tmp_path / "net.onnx")
    assert any(n.op_type == "Scan" for n in onnx.load(path).graph.node)
    compare(model, arguments, path)
