"""Sessions of ONNX Runtime: providers, errors, one model run many times by many threads."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import platform
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import InferenceError, RuntimeMissingError, first_line
from onnxcam.runtime.device import DeviceTensor, Traffic
from onnxcam.runtime.gpu import CUDA, cuda_problem, load_problem
from onnxcam.runtime.streams import Keeper, Stream

# A name, or names with or without options as ONNX Runtime takes them.
Providers = str | Sequence[str | tuple[str, Mapping[str, Any]]] | None

CPU = "CPUExecutionProvider"
_SHORT = {"cpu": CPU, "cuda": CUDA}


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

    ``None`` and ``"auto"`` take CUDA where runtime, driver and GPU allow it, with the CPU behind
    it. A list with CUDA and the CPU allows the CPU likewise.

    Raises:
        RuntimeMissingError: a requested provider is not in the installed runtime, or CUDA was
            requested and something that it needs is missing.
    """
    runtime = load_runtime()
    available: list[str] = runtime.get_available_providers()
    if requested is None or requested == "auto":
        return [CUDA, CPU] if CUDA in available and cuda_problem(runtime) is None else [CPU]
    names = [requested] if isinstance(requested, str) else list(requested)
    chosen = [_SHORT.get(n.lower(), n) if isinstance(n, str) else n for n in names]
    asked = [_name(entry) for entry in chosen]
    if CUDA in asked:
        problem = cuda_problem(runtime)
        if problem and CPU not in asked:
            raise RuntimeMissingError(f"CUDA cannot be used: {problem}.")
        if problem:
            chosen = [entry for entry in chosen if _name(entry) != CUDA]
    for name in map(_name, chosen):
        if name not in available:
            raise RuntimeMissingError(
                f"provider '{name}' is not in this ONNX Runtime, which has {', '.join(available)}."
            )
    return chosen


def first_provider(requested: Providers) -> str:
    """Return the name of the best provider, see :func:`choose_providers`."""
    return _name(choose_providers(requested)[0])


def keeps_blocks(provider: str) -> bool:
    """Whether convolutions keep images in blocks of channels: on the CPU, an x86 one."""
    return provider == CPU and platform.machine().lower() in ("x86_64", "amd64")


def _name(entry: str | tuple[str, Mapping[str, Any]]) -> str:
    return entry if isinstance(entry, str) else entry[0]


class Session:
    """One loaded model; :meth:`run` may be called from several threads at once.

    Attributes:
        providers: execution providers in use, best first.
        inputs: names of the model's inputs.
        outputs: names of the model's outputs.
        traffic: what was moved to and from the device.
    """

    def __init__(
        self,
        model: bytes | Path,
        folder: Path,
        providers: Providers = None,
        name: str = "model",
        stream: Any = None,
        *,
        rests: bool = False,
    ) -> None:
        """Load a model.

        Args:
            model: serialised, or a file.
            folder: where its external weights are.
            providers: see :func:`choose_providers`.
            name: the model's name in messages.
            stream: a CUDA stream (Numba's, or what ``int`` makes a handle of) to run on, shared
                with kernels; without it, or with the handle 0, ONNX Runtime has one of its own.
            rests: whether threads stop spinning when a run ends: another session, which runs by
                turns with this one, would have to wait for them.

        Raises:
            RuntimeMissingError: no runtime or no such provider.
            InferenceError: the runtime refuses the model.
        """
        runtime, shared = load_runtime(), Stream.of(stream)
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what it would log as an error, it raises too
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
        if rests:
            options.add_session_config_entry("session.force_spinning_stop", "1")
        chosen = choose_providers(providers)
        names = [_name(entry) for entry in chosen]
        if CUDA in names and hasattr(runtime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):  # what it lacks is told below
                runtime.preload_dlls()
        if isinstance(model, bytes) and _version(runtime) < (1, 21):
            model = _with_outer_weights(model, folder)
        try:
            self._session = runtime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=[_on_stream(entry, shared) for entry in chosen],
                enable_fallback=0,
            )
        except Exception as error:
            raise InferenceError(
                f"{name}: ONNX Runtime refuses the model: {first_line(error)}"
            ) from error
        self._runtime, self._name, self._stream = runtime, name, shared
        self._keeper = Keeper()
        self.providers: list[str] = self._session.get_providers()
        self.inputs: list[str] = [i.name for i in self._session.get_inputs()]
        self.inputs += [i.name for i in self._session.get_overridable_initializers()]
        self.outputs: list[str] = [o.name for o in self._session.get_outputs()]
        self.traffic = Traffic()
        if CUDA in names and CUDA not in self.providers:
            problem = load_problem(runtime)
            if CPU not in names:
                raise RuntimeMissingError(f"CUDA cannot be used: {problem}.")
            warnings.warn(f"the GPU is not used: {problem}.", stacklevel=2)
        self.device: str | None = "cuda" if self.providers[0] == CUDA else None

    def upload(self, array: NDArray[Any]) -> Any:
        """Return an input that a later run finds on its device: the array itself on the CPU."""
        if self.device is None:
            return array
        self.traffic.add(to_device=array.nbytes)
        array = np.ascontiguousarray(array)
        return self._runtime.OrtValue.ortvalue_from_numpy(array, self.device, 0)

    def run(
        self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Run the model and return the outputs by name.

        Args:
            feeds: inputs by name: arrays, or what :meth:`upload` returned.
            outputs: names of the wanted outputs, by default all.

        Raises:
            InferenceError: the runtime fails.
        """
        names = list(outputs) if outputs is not None else self.outputs
        try:
            if self.device is None:
                values = self._session.run(names, dict(feeds))
            else:
                values = [v.numpy() for v in self._bound(feeds, names, "cpu")]
                self.traffic.add(to_host=sum(v.nbytes for v in values))
        except Exception as error:
            raise self._failure(error) from error
        return {name: np.asarray(v) for name, v in zip(names, values, strict=True)}

    def run_on_device(
        self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, DeviceTensor]:
        """Run the model and leave the outputs on its device.

        With a stream of the caller's the run is only enqueued there, and so is ready for kernels
        on that stream; inputs and outputs may be dropped meanwhile. Needs a session on a GPU.

        Raises:
            InferenceError: the runtime fails, or the session runs on the CPU.
        """
        if self.device is None:
            raise InferenceError(
                f"{self._name}: the session runs on {', '.join(self.providers)}, not on a GPU."
            )
        names = list(outputs) if outputs is not None else self.outputs
        try:
            values = self._bound(feeds, names, self.device, wait=self._stream is None)
        except Exception as error:
            raise self._failure(error) from error
        keeper = self._keeper if self._stream is None else None
        tensors = (DeviceTensor(v, self._stream, self.traffic, keeper) for v in values)
        return dict(zip(names, tensors, strict=True))

    def _bound(
        self, feeds: Mapping[str, Any], names: Sequence[str], device: str, wait: bool = True
    ) -> list[Any]:
        """Run with inputs and outputs where they are wanted."""
        self._keeper.release()
        inputs = []
        binding = self._session.io_binding()
        for name, value in feeds.items():
            if isinstance(value, np.ndarray):
                self.traffic.add(to_device=value.nbytes)
                # bind_cpu_input would know no input with a default, such as the targets.
                value = self._runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
            binding.bind_ortvalue_input(name, value)
            inputs.append(value)
        for name in names:
            binding.bind_output(name, device)
        options = self._runtime.RunOptions()
        if not wait:
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._session.run_with_iobinding(binding, options)
        if not wait and self._stream is not None:  # the run is queued, and reads them
            self._keeper.keep(self._stream.mark(), binding, *inputs)
        return list(binding.get_outputs())

    def _failure(self, error: Exception) -> InferenceError:
        return InferenceError(f"{self._name}: ONNX Runtime failed: {first_line(error)}")


def _on_stream(entry: Any, stream: Stream | None) -> Any:
    """Return a provider that runs on a given stream."""
    if stream is None or _name(entry) != CUDA:
        return entry
    options = {} if isinstance(entry, str) else dict(entry[1])
    return CUDA, {**options, "user_compute_stream": str(stream.handle)}


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
