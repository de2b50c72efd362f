"""How the command line speaks: results on stdout; warnings, errors and the bar on stderr.

A warning's first line is whole in itself, and says the way out; the lines after it explain, and are
printed with ``--verbose`` alone. ``--quiet`` leaves errors, and what was asked for in so many words
(``--json``).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Explain warnings in full, not in one line.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Item = TypeVar("Item")


class _Voice:
    """How loud it is, and the terminal while a bar is drawn on it."""

    verbose = False
    quiet = False
    bar: Console | None = None
    said: ClassVar[set[str]] = set()  # warnings, which every image may repeat


_voice = _Voice()


def begin() -> None:
    """Speak normally, and print Python's warnings of users' matters as such lines."""
    tune(verbose=False, quiet=False)
    _voice.said.clear()
    warnings.showwarning = lambda message, *_, **__: warn(str(message))
    warnings.simplefilter("always", UserWarning)


def tune(*, verbose: bool, quiet: bool) -> None:
    """Choose how much is said.

    Raises:
        BadParameter: both are wanted.
    """
    if verbose and quiet:
        raise typer.BadParameter("goes without --verbose.", param_hint="--quiet")
    _voice.verbose, _voice.quiet = verbose, quiet


def say(text: str) -> None:
    """Print a line about what is done."""
    if not _voice.quiet:
        _print(text, err=False)


def warn(message: str, kind: str = "warning") -> None:
    """Print a warning, once: its first line, or with ``--verbose`` all of it."""
    if _voice.quiet or message in _voice.said:
        return
    _voice.said.add(message)
    first, _, more = message.partition("\n")
    if more and _voice.verbose:
        first += "".join(f"\n  {line}" for line in more.split("\n"))
    elif more:
        first += " (--verbose says more)"
    _print(f"onnxcam: {kind}: {first}", err=True)


def complain(text: str) -> None:
    """Print an error."""
    _print(text, err=True)


def watched(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Yield items; where someone is watching, draw a bar below what is printed meanwhile."""
    if _voice.quiet or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    # Rich would send stdout to the bar's stream, files and pipes included.
    with Progress(console=console, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(what, total=total)
        _voice.bar = console
        try:
            for item in items:
                yield item
                bar.advance(task)
        finally:
            _voice.bar = None


def _print(text: str, *, err: bool) -> None:
    if _voice.bar is not None and (err or sys.stdout.isatty()):
        _voice.bar.print(text, markup=False, highlight=False, soft_wrap=True)  # above the bar
    else:
        typer.echo(text, err=err)
