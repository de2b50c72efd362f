"""Time several functions side by side in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

PAUSE = 0.03  # seconds: a runtime's idle threads spin for a while and would disturb the next


def side_by_side(
    functions: Mapping[str, Callable[[], object]], rounds: int, seconds: float = 0.25
) -> tuple[dict[str, float], dict[str, float]]:
    """Return median seconds of each function, and the median of its ratios to the first.

    In every round each function runs for about ``seconds`` (at least three times), its first
    run uncounted; ratios are taken within rounds, so that a drift of the machine cancels.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            time.sleep(PAUSE)
            function()
            block: list[float] = []
            while len(block) < 3 or sum(block) < seconds:
                start = time.perf_counter()
                function()
                block.append(time.perf_counter() - start)
            times[name].append(statistics.median(block))
    first = next(iter(functions))
    ratios = {
        name: statistics.median(a / b for a, b in zip(values, times[first], strict=True))
        for name, values in times.items()
    }
    return {name: statistics.median(values) for name, values in times.items()}, ratios


def paired(
    first: Callable[[], object],
    second: Callable[[], object],
    repeats: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Return the median seconds of the second function, and of its ratios to the first by turns.

    A turn runs each for 0.05 seconds at least. There are ``repeats`` turns, or fewer once
    ``seconds`` have passed. Both run once before, which makes what they make on first use.
    On a machine that others use, ``time.process_time`` is the better clock, though not the same.
    """
    first()
    second()
    ratios, times, start = [], [], time.perf_counter()
    while not ratios or (len(ratios) < repeats and time.perf_counter() - start < seconds):
        turn = [_turn(function, seconds / 20, clock) for function in (first, second)]
        ratios.append(turn[1] / turn[0])
        times.append(turn[1])
    return statistics.median(times), statistics.median(ratios)


def _turn(function: Callable[[], object], warm: float, clock: Callable[[], float]) -> float:
    """Return the median of a function's runs; the first does not count if it is short."""
    time.sleep(PAUSE)
    block: list[float] = []
    short = False
    while not block or sum(block) < 0.05:
        start = clock()
        function()
        taken = clock() - start
        if short or taken > warm:
            block.append(taken)
        short = True
    return statistics.median(block)


def quickest(
    functions: Mapping[str, Callable[[], object]], rounds: int, seconds: float = 0.1
) -> dict[str, float]:
    """Return the seconds of each function's quickest run, of ``rounds`` times ``seconds``.

    For functions of microseconds: of thousands of runs some have the processor to themselves,
    also where it is shared.
    """
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            time.sleep(PAUSE)
            function()
            end, runs = time.perf_counter() + seconds, 0
            while runs < 3 or time.perf_counter() < end:
                start = time.perf_counter()
                function()
                best[name] = min(best[name], time.perf_counter() - start)
                runs += 1
    return best


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
