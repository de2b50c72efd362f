"""``onnxcam doctor``."""

from __future__ import annotations

import json
import platform
import sys
from typing import Annotated, Any

import typer

PACKAGES = ("onnxcam", "onnx", "onnx-ir", "numpy", "pillow", "typer", "rich", "cmap")
OPTIONAL = ("onnxruntime", "onnxruntime-gpu", "numba-cuda")


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Tell versions, providers and kernels in use, what is missing and how to get it."""
    report = examine()
    if json_:
        typer.echo(json.dumps(report, indent=2))
        return
    typer.echo(f"python     {report['python']} on {report['platform']}")
    for name, found in report["packages"].items():
        typer.echo(f"{name:<16} {found or 'not installed'}")
    typer.echo(f"providers  {', '.join(report['providers']) or 'none'}")
    typer.echo(f"kernels    {report['kernels']}")
    for line in report["advice"]:
        typer.echo(f"advice     {line}")
    if not report["advice"]:
        typer.echo("All is well.")


def examine() -> dict[str, Any]:
    """Return the state of the installation as JSON-ready data."""
    from onnxcam.errors import RuntimeMissingError
    from onnxcam.kernels import kernels_name
    from onnxcam.runtime.session import load_runtime

    advice: list[str] = []
    providers: list[str] = []
    packages = {name: _version(name) for name in (*PACKAGES, *OPTIONAL)}
    try:
        providers = load_runtime().get_available_providers()
    except RuntimeMissingError as error:
        advice.append(str(error))
    if packages["onnxruntime"] and packages["onnxruntime-gpu"]:
        advice.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "uninstall both, then install one of onnxcam[cpu] and onnxcam[gpu]."
        )
    kernels = kernels_name()
    if kernels != "native":
        advice.append(
            "the NumPy kernels are in use; they are right but slow. The C kernels are built on "
            "install where a C and C++ compiler is found: install one (for Debian: apt-get "
            "install g++), then 'pip install --force-reinstall --no-deps onnxcam'."
        )
    return {
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "providers": providers,
        "kernels": kernels,
        "advice": advice,
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None
