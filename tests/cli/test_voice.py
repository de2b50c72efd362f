"""How the command line speaks: quietly, at length, and beside a progress bar."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def test_quiet_leaves_errors_and_json(folder: Path, call) -> None:
    (folder / "model.toml").unlink()
    arguments = ("explain", "photos", "-m", "model.onnx", "--quiet")
    assert call(*arguments) == (0, "", "")
    assert (folder / "onnxcam-out" / "explanations.json").is_file()
    code, out, err = call(*arguments, "--json")
    assert (code, err) == (0, "") and out.startswith("{")
    code, out, err = call(*arguments, "gone.png")
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "onnxcam: skipped: gone.png: no such file.",
        "1 of 3 images failed.",
    ]
    arguments = ("gradient", "model.onnx", "-o", "g.onnx", "-q")
    assert call(*arguments) == (0, "", "")
    code, _, err = call("explain", "photos", "-m", "model.onnx", "-q", "-v")
    assert code == 2 and "goes without --verbose" in err


def screen(written: str) -> list[str]:
    """Return the lines that a terminal shows, scrolled back to the first."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[\d;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part.startswith("\x1b["):
            count = int(part[2:-1]) if part[2:-1].isdecimal() else 1
            if part.endswith("A"):
                row = max(0, row - count)
            elif part.endswith("K"):
                lines[row] = "" if count == 2 else lines[row][:column]
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


def in_a_terminal(folder: Path, command: list[str], stdout: Path | None) -> str:
    """Return what a command writes to a terminal; its stdout may go to a file."""
    main, other = pty.openpty()
    out = other if stdout is None else os.open(stdout, os.O_WRONLY | os.O_CREAT)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "50"}
    process = subprocess.Popen(command, stdout=out, stderr=other, cwd=folder, env=environment)
    os.close(other)
    written = b""
    while True:
        try:
            data = os.read(main, 1 << 16)
        except OSError:
            data = b""
        if not data:
            break
        written += data
    os.close(main)
    assert process.wait() == 1
    return written.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("to_file", [False, True])
def test_names_and_bar_have_lines_of_their_own(folder: Path, to_file: bool) -> None:
    """Names longer than a line, and a failure; stdout that goes to a file gets there."""
    names = [f"{i}-{'long-' * 18}name.png" for i in range(5)]
    for name in names:
        shutil.copy(folder / "photos" / "a.png", folder / name)
    command = [sys.executable, "-m", "onnxcam", "explain", *names, "gone.png", "-m", "model.onnx"]
    log = folder / "log.txt" if to_file else None
    shown = screen(in_a_terminal(folder, command, log))
    listed = shown if log is None else log.read_text().splitlines()
    assert [line for line in listed if line in names] == names
    assert shown.count("onnxcam: skipped: gone.png: no such file.") == 1
    bars = [line for line in shown if "Explaining" in line]
    assert len(bars) == 1 and re.fullmatch(r"Explaining \S+ 100% [-\d:]+", bars[0])
    assert not set(names) & set(shown) if to_file else set(names) <= set(shown)
