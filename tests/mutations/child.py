"""Explain one file after another in one process; what the process prints tells how far it came.

Started with the name of a folder, whose ``jobs.json`` lists arguments of the command line, and the
number of the job to begin with. Each job is told when it begins, as ``{"job": 3}``, and when it
ends, with its exit code, what it wrote to standard error (by Python or by C++) and its seconds.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

MEMORY = 6 << 30  # bytes of address space


def main() -> None:
    folder, first = Path(sys.argv[1]), int(sys.argv[2])
    jobs = json.loads((folder / "jobs.json").read_text())
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    report = os.fdopen(os.dup(1), "w")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    for number in range(first, len(jobs)):
        print(json.dumps({"job": number}), file=report, flush=True)
        with tempfile.TemporaryFile() as errors:
            os.dup2(errors.fileno(), 2)
            start = time.perf_counter()
            code = called(jobs[number])
            seconds = time.perf_counter() - start
            sys.stderr.flush()
            errors.seek(0)
            text = errors.read().decode("utf-8", "replace")
        done = {"job": number, "code": code, "stderr": text, "seconds": seconds}
        print(json.dumps(done), file=report, flush=True)


def called(arguments: list[str]) -> int | None:
    """Return the exit code, as the interpreter would give it."""
    from onnxcam.cli import main as command

    sys.argv = ["onnxcam", *arguments]
    try:
        command()
    except SystemExit as stop:
        return 0 if stop.code is None else stop.code
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
