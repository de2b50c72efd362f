"""Run the command line on changed files, and say what is wrong with what it does."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ALLOWED = ("onnxcam: ", "1 of 1 images failed.")
LIBTIFF = ("LZW", "TIFF", "tempfile.tif: ", "OJPEG")  # printed by the library before Pillow raises


@dataclass
class Outcome:
    """What became of one changed file; ``problem`` is empty where all is as it should be."""

    what: str
    code: int | None
    stderr: str
    seconds: float
    problem: str = ""
    file: str = ""


def run(folder: Path, jobs: Iterable[tuple[str, list[str], str]], limit: float) -> list[Outcome]:
    """Explain files in as few processes as crashes and hangs allow.

    Args:
        folder: to work in; each job writes to a folder of its own in it.
        jobs: what was done, arguments of the command line, and the changed file.
        limit: seconds after which a run is said to hang.
    """
    jobs = list(jobs)
    outs = [f"out/{number}" for number in range(len(jobs))]
    lines = [[*arguments, "-o", out] for (_, arguments, _), out in zip(jobs, outs, strict=True)]
    (folder / "jobs.json").write_text(json.dumps(lines))
    found: list[Outcome] = []
    while len(found) < len(jobs):
        found += _until_it_dies(folder, [what for what, _, _ in jobs], len(found), limit)
    for outcome, out, (_, _, file) in zip(found, outs, jobs, strict=True):
        outcome.file = file
        outcome.problem = outcome.problem or _wrong(outcome, folder / out)
    return found


def _until_it_dies(folder: Path, names: list[str], first: int, limit: float) -> list[Outcome]:
    command = [sys.executable, "-m", "tests.mutations.child", str(folder), str(first)]
    root = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": path}, text=True
    )
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    found: list[Outcome] = []
    begun = False
    while True:
        try:
            line = lines.get(timeout=limit if begun else 60)
        except queue.Empty:
            line = ""
            process.kill()
            problem = f"hangs for {limit:g} s"
        else:
            problem = ""
        if not line:
            code = process.wait()
            if begun:
                problem = problem or f"ends the process ({code})"
                found.append(Outcome(names[first + len(found)], None, "", limit, problem))
            elif first + len(found) < len(names):
                raise RuntimeError(f"the process that explains ended with {code}")
            return found
        said = json.loads(line)
        begun = "code" not in said
        if not begun:
            what = names[said["job"]]
            found.append(Outcome(what, said["code"], said["stderr"], said["seconds"]))


def _wrong(outcome: Outcome, out: Path) -> str:
    """Return what is wrong with an exit code, messages, or what was written; ``""`` for nothing."""
    if outcome.code not in (0, 1, 2):
        return f"exit code {outcome.code}"
    if "Traceback" in outcome.stderr:
        return "traceback: " + outcome.stderr.strip().splitlines()[-1]
    for line in outcome.stderr.splitlines():
        if line.strip() and not line.startswith((*ALLOWED, *LIBTIFF)):
            return f"says on stderr: {line[:200]}"
    if outcome.code and "error: " not in outcome.stderr and "skipped: " not in outcome.stderr:
        return "fails without a reason"
    if not out.exists():
        return "wrote nothing" if outcome.code == 0 else ""
    for file in out.iterdir():
        try:
            if file.name == "explanations.json":
                json.loads(file.read_text("utf-8"))
            else:
                Image.open(file).load()
        except Exception as error:
            return f"left {file.name} half written: {error}"
    if outcome.code == 0 and not (out / "explanations.json").exists():
        return "wrote no explanations.json"
    return ""
