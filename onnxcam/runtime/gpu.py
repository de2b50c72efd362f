"""Find the GPU, and what keeps ONNX Runtime from using it."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CUDA = "CUDAExecutionProvider"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Gpu:
    """The first GPU that the driver shows.

    Attributes:
        name: as the driver calls it.
        memory: bytes.
        capability: compute capability, ``"9.0"`` say.
        driver: the newest CUDA that the driver supports, ``"13.0"`` say.
    """

    name: str
    memory: int
    capability: str
    driver: str

    def __str__(self) -> str:
        return (
            f"{self.name}, {self.memory / 2**30:.0f} GiB, compute capability {self.capability}, "
            f"driver for CUDA {self.driver}"
        )


def find_gpu() -> Gpu | str:
    """Ask the driver for the GPU; return it, or why there is none."""
    try:
        return _ask(load_driver())
    except OSError:
        return f"there is no NVIDIA driver ({_library()} cannot be loaded)"


def load_driver() -> Any:
    """Return the NVIDIA driver's library.

    Raises:
        OSError: there is none.
    """
    return ctypes.CDLL(_library())


def _library() -> str:
    return "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def _ask(driver: Any) -> Gpu | str:
    version, count, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    code = driver.cuInit(0)
    if code == 100:
        return "the NVIDIA driver finds no GPU (see CUDA_VISIBLE_DEVICES and nvidia-smi)"
    if code:
        return f"the NVIDIA driver does not start (cuInit gives error {code}; see nvidia-smi)"
    driver.cuDriverGetVersion(ctypes.byref(version))
    if driver.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
        return "the NVIDIA driver finds no GPU (see CUDA_VISIBLE_DEVICES and nvidia-smi)"
    name, memory = ctypes.create_string_buffer(128), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, len(name), device)
        or driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    if failed:
        return f"the NVIDIA driver does not describe its GPU (error {failed}; see nvidia-smi)"
    return Gpu(
        name=name.value.decode(errors="replace"),
        memory=memory.value,
        capability=f"{major.value}.{minor.value}",
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def cuda_problem(runtime: Any) -> str | None:
    """Return why this ONNX Runtime cannot use CUDA, and the way out; ``None`` where it can."""
    if CUDA not in runtime.get_available_providers():
        return (
            f"this onnxruntime {runtime.__version__} has no CUDA in it: 'pip uninstall "
            "onnxruntime', then 'pip install onnxcam[gpu]'"
        )
    gpu = find_gpu()
    if isinstance(gpu, str):
        return gpu
    built = str(getattr(runtime, "cuda_version", "") or "")
    if built and int(built.split(".")[0]) > int(gpu.driver.split(".")[0]):
        return (
            f"this onnxruntime {runtime.__version__} is built for CUDA {built}, the driver "
            f"supports CUDA {gpu.driver} at most: update the driver, or install an onnxruntime-gpu "
            f"for CUDA {gpu.driver.split('.')[0]}"
        )
    return None


def load_problem(runtime: Any) -> str:
    """Return why the CUDA provider was not loaded, after a session that failed to load it.

    Call it only after such a session: the provider's library needs ONNX Runtime to be loaded.
    """
    library = Path(runtime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        name, _, rest = str(error).partition(":")
        if "cannot open shared object" in rest and name != str(library):
            return (
                f"onnxruntime-gpu needs {name}, which is not found: install CUDA and cuDNN, for "
                "instance with 'pip install onnxruntime-gpu[cuda,cudnn]'"
            )
    return (
        "ONNX Runtime could not start its CUDA provider: what it printed above, or a run with "
        "log_severity_level 0, says more"
    )
