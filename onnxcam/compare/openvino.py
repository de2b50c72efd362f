"""Run an instrumented model by OpenVINO."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from onnxcam.errors import InferenceError, RuntimeMissingError, first_line
from onnxcam.runner import Program, Runner
from onnxcam.runtime.device import Traffic
from onnxcam.runtime.session import Session
from onnxcam.surgeon.plan import CLASSES, RANKS, TARGETS, Plan

OPENVINO = "OpenVINO"


class OpenVinoRunner(Runner):
    """Makes programs that OpenVINO runs on the CPU in float32."""

    def __init__(self, path: Path, layer: str, score: str) -> None:
        """Take the model's file, and layer and score as an explainer takes them.

        Raises:
            RuntimeMissingError: OpenVINO is not installed.
        """
        if importlib.util.find_spec("openvino") is None:
            raise RuntimeMissingError(
                "OpenVINO is not installed. Install it with 'pip install onnxcam[openvino]'."
            )
        super().__init__(
            path, layers=(layer,), score=score, engine="rules", providers="cpu", cached=False
        )
        self.blocks = False  # a form for ONNX Runtime

    def load(self, model: bytes | Path, plan: Plan) -> Program:
        """Load an instrumented model.

        Raises:
            InferenceError: OpenVINO refuses it.
        """
        data = model.read_bytes() if isinstance(model, Path) else model
        session = OpenVinoSession(data, self.path.absolute().parent, self.path.name)
        return Program(cast(Session, session), plan)


class OpenVinoSession:
    """A model that OpenVINO runs; what :class:`onnxcam.runtime.session.Session` offers on a CPU."""

    device = None

    def __init__(self, model: bytes, folder: Path, name: str) -> None:
        """Compile a serialised model, whose outer weights lie in a folder."""
        import onnx
        import openvino

        proto = onnx.ModelProto.FromString(model)
        if any(t.external_data for t in proto.graph.initializer):
            import onnx.external_data_helper

            onnx.external_data_helper.load_external_data_for_model(proto, str(folder))
        _name_targets(proto.graph)
        self._name, self.traffic, self.providers = name, Traffic(), [OPENVINO]
        try:
            core = openvino.Core()
            network = core.read_model(proto.SerializeToString())
            # Its default is bfloat16 on some processors, which is another model.
            hint = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
            self._compiled = core.compile_model(network, "CPU", hint)
        except Exception as error:
            raise InferenceError(f"{name}: OpenVINO refuses the model: {_reason(error)}") from error
        # A tensor has the names of all that it is the same as, in the model and in OpenVINO's form.
        self.inputs = [n for i in self._compiled.inputs for n in i.get_names()]
        self._places = {
            n: place for place, o in enumerate(self._compiled.outputs) for n in o.get_names()
        }
        self.outputs = list(self._places)

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array: it stays on the host."""
        return array

    def run(
        self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Run the model and return the outputs by name.

        Raises:
            InferenceError: it fails.
        """
        fed = {n: np.ascontiguousarray(v) for n, v in feeds.items() if n in self.inputs}
        try:
            found = self._compiled(fed)
        except Exception as error:
            raise InferenceError(f"{self._name}: OpenVINO failed: {_reason(error)}") from error
        wanted = self.outputs if outputs is None else outputs
        return {name: np.array(found[self._places[name]]) for name in wanted}


def _name_targets(graph: Any) -> None:
    """Have targets named by class alone.

    OpenVINO makes constants of inputs that have a default, so targets may have none; and the count
    of the ranks among them, which only a run tells, it does not take.
    """
    kept = [t for t in graph.initializer if t.name not in (TARGETS, RANKS)]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for node in graph.node:
        if node.op_type == "Where" and CLASSES in node.output and TARGETS in node.input:
            node.op_type = "Identity"
            del node.input[:]
            node.input.append(TARGETS)


_FRAME = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't", "-- ")


def _reason(error: Exception) -> str:
    """Return the line of OpenVINO's message that says something."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(_FRAME)]
    return said[0] if said else first_line(error)
