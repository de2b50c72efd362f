"""Sessions of ONNX Runtime: providers, errors, one model run many times by many threads."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import InferenceError, RuntimeMissingError

# A name, or names with or without options as ONNX Runtime takes them.
Providers = str | Sequence[str | tuple[str, Mapping[str, Any]]] | None

_SHORT = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def load_runtime() -> Any:
    """Import ONNX Runtime.

    Raises:
        RuntimeMissingError: neither onnxruntime nor onnxruntime-gpu is installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise RuntimeMissingError(
            "ONNX Runtime is not installed. Install it with 'pip install onnxcam[cpu]', or "
            "'pip install onnxcam[gpu]' for CUDA (one of them, not both)."
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissingError(f"ONNX Runtime cannot be loaded: {error}.") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise RuntimeMissingError(
            "ONNX Runtime is only partly installed. Remove onnxruntime and onnxruntime-gpu, then "
            "'pip install onnxcam[cpu]'."
        )
    return onnxruntime


def choose_providers(requested: Providers) -> list[Any]:
    """Return execution providers, best first.

    ``None`` and ``"auto"`` take CUDA where the runtime has it, with the CPU behind it.

    Raises:
        RuntimeMissingError: a requested provider is not in the installed runtime.
    """
    available: list[str] = load_runtime().get_available_providers()
    if requested is None or requested == "auto":
        preferred = ("CUDAExecutionProvider", "CPUExecutionProvider")
        return [p for p in preferred if p in available]
    names = [requested] if isinstance(requested, str) else list(requested)
    chosen = [_SHORT.get(n.lower(), n) if isinstance(n, str) else n for n in names]
    for entry in chosen:
        name = entry if isinstance(entry, str) else entry[0]
        if name not in available:
            way_out = (
                " Install 'onnxcam[gpu]' in place of 'onnxcam[cpu]'."
                if name == "CUDAExecutionProvider"
                else ""
            )
            raise RuntimeMissingError(
                f"provider '{name}' is not in this ONNX Runtime, which has "
                f"{', '.join(available)}.{way_out}"
            )
    return chosen


class Session:
    """One loaded model; :meth:`run` may be called from several threads at once."""

    def __init__(
        self, model: bytes | Path, folder: Path, providers: Providers = None, name: str = "model"
    ) -> None:
        """Load a model.

        Args:
            model: serialised, or a file.
            folder: where its external weights are.
            providers: see :func:`choose_providers`.
            name: the model's name in messages.

        Raises:
            RuntimeMissingError: no runtime or no such provider.
            InferenceError: the runtime refuses the model.
        """
        runtime = load_runtime()
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
        chosen = choose_providers(providers)
        if isinstance(model, bytes) and _version(runtime) < (1, 21):
            model = _with_outer_weights(model, folder)
        try:
            self._session = runtime.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=chosen
            )
        except Exception as error:
            raise InferenceError(
                f"{name}: ONNX Runtime refuses the model: {_first_line(error)}"
            ) from error
        self._name = name
        self.providers: list[str] = self._session.get_providers()
        self.outputs: list[str] = [o.name for o in self._session.get_outputs()]

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Run the model and return the outputs by name.

        Raises:
            InferenceError: the runtime fails.
        """
        names = list(outputs) if outputs is not None else self.outputs
        try:
            values = self._session.run(names, dict(feeds))
        except Exception as error:
            raise InferenceError(
                f"{self._name}: ONNX Runtime failed: {_first_line(error)}"
            ) from error
        return {name: np.asarray(v) for name, v in zip(names, values, strict=True)}


def _version(runtime: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in runtime.__version__.split(".")[:2])


def _with_outer_weights(model: bytes, folder: Path) -> bytes:
    """Store external weights inside the model, for runtimes that do not look for them."""
    import onnx
    import onnx.external_data_helper

    proto = onnx.ModelProto.FromString(model)
    if not any(t.external_data for t in proto.graph.initializer):
        return model
    onnx.external_data_helper.load_external_data_for_model(proto, str(folder))
    return bytes(proto.SerializeToString())


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
