"""``onnxcam doctor``."""

from __future__ import annotations

import json
import platform
import sys
from typing import Annotated, Any

import typer

PACKAGES = ("onnxcam", "onnx", "onnx-ir", "numpy", "pillow", "typer", "rich", "cmap")
RUNTIMES = {
    "onnxruntime": "cpu",
    "onnxruntime-gpu": "gpu",
    "onnxruntime-training-cpu": "ort-training",
}
OPTIONAL = (*RUNTIMES, "numba-cuda")


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    warm: Annotated[
        bool, typer.Option("--warm", help="Compile all CUDA kernels into the cache.")
    ] = False,
) -> None:
    """Show versions, providers, GPU and kernels, what is missing and how to get it.

    It runs one kernel of each usable implementation and compares it with the reference.
    """
    report = examine(warm)
    if json_:
        typer.echo(json.dumps(report, indent=2))
        return
    typer.echo(f"python     {report['python']} on {report['platform']}")
    for name, found in report["packages"].items():
        typer.echo(f"{name:<24} {found or 'not installed'}")
    typer.echo(f"runtime    {report['runtime'] or 'none'}")
    typer.echo(f"providers  {', '.join(report['providers']) or 'none'}")
    typer.echo(f"gpu        {report['gpu']}")
    typer.echo(f"cuda       {report['cuda']}")
    typer.echo(f"kernels    {report['kernels']}")
    for name, finding in report["checks"].items():
        typer.echo(f"  {name:<8} {finding}")
    if report["warm"] is not None:
        typer.echo(f"warm       {report['warm']}")
    typer.echo(f"engines    {', '.join(report['engines'])}")
    for line in report["advice"]:
        typer.echo(f"advice     {line}")
    if not report["advice"]:
        typer.echo("Done: nothing is missing.")


def examine(warm: bool = False) -> dict[str, Any]:
    """Return the state of the installation as JSON-ready data."""
    from onnxcam import health
    from onnxcam.errors import EngineError, RuntimeMissingError
    from onnxcam.gradient.ort.engine import builder_class
    from onnxcam.kernels import kernels_name
    from onnxcam.runtime.session import load_runtime

    advice: list[str] = []
    providers: list[str] = []
    runtime: str | None = None
    cuda = "not usable: there is no ONNX Runtime"
    packages = {name: _version(name) for name in (*PACKAGES, *OPTIONAL)}
    try:
        loaded = load_runtime()
        providers = loaded.get_available_providers()
        runtime, cuda = health.describe_runtime(loaded), health.check_provider(loaded)
    except RuntimeMissingError as error:
        advice.append(str(error))
    advice += _two_runtimes(packages)
    engines = ["rules"]
    try:
        builder_class()
        engines.append("ort")
    except EngineError:
        pass  # few need the second engine, so no advice
    kernels = kernels_name()
    if kernels != "native":
        advice.append(
            "the NumPy kernels are in use; they are right but slow. The C kernels are built on "
            "install where a C and C++ compiler is found: install one (for Debian: apt-get "
            "install g++), then 'pip install --force-reinstall --no-deps onnxcam'."
        )
    gpu = health.describe_gpu()
    checks = {
        kernels: health.check_kernels(kernels),
        "cuda": health.check_cuda_kernels(gpu, "combine"),
    }
    if not gpu.startswith("none"):
        advice += _idle_gpu(cuda, checks["cuda"])
    if not checks[kernels].startswith("ok"):
        advice.append(f"the {kernels} kernels do not work: {checks[kernels]}. Report this, please.")
    return {
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "runtime": runtime,
        "providers": providers,
        "gpu": gpu,
        "cuda": cuda,
        "kernels": kernels,
        "checks": checks,
        "warm": health.warm(gpu) if warm else None,
        "engines": engines,
        "advice": advice,
    }


def _two_runtimes(packages: dict[str, str | None]) -> list[str]:
    """Return advice where ONNX Runtime is installed more than once."""
    together = [name for name in RUNTIMES if packages[name]]
    if len(together) < 2:
        return []
    extras = " or ".join(f"onnxcam[{RUNTIMES[name]}]" for name in together)
    return [
        f"{' and '.join(together)} are installed together and overwrite each other: uninstall "
        f"them all, then install one of {extras}."
    ]


def _idle_gpu(runtime: str, kernels: str) -> list[str]:
    """Return what keeps a GPU from being used."""
    found = {"ONNX Runtime on the GPU": runtime, "the CUDA kernels": kernels}
    return [f"{w}: {t.rstrip('.')}." for w, t in found.items() if not t.startswith("ok")]


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
