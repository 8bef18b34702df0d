"""What a run of one row says: figures over the rounds, ratios against bars, where and when; a screen and a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from benchmarks import bars
from benchmarks.bars import Ratio
from benchmarks.pinned import Progress
from core.errors import BadInput
from loadtests.machine import Machine, describe_machine, git_commit, point_latest

ROUNDS_MOST: Final = 20
_SECONDS: Final = (0.2, 10.0)  # of one window


class Figure(msgspec.Struct, frozen=True):
    """Something measured once a round (or once a run), for reading, without a bar."""

    name: str
    unit: str
    values: list[float]


class Report(msgspec.Struct, frozen=True):
    """A whole run, as ``<verb>.json``."""

    schema: int
    verb: str
    started_at: str
    git_commit: str
    machine: Machine
    rounds: int
    window_s: float
    figures: list[Figure]
    ratios: list[Ratio]
    notes: list[str]  # what was counted, and how far it can be believed


def report(
    verb: str,
    rounds: int,
    window_s: float,
    figures: Sequence[Figure],
    ratios: Sequence[Ratio],
    notes: Sequence[str],
) -> Report:
    """Return a run's report, stamped with the machine, the tree and the time."""
    return Report(
        schema=1,
        verb=verb,
        started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        git_commit=git_commit(),
        machine=describe_machine(),
        rounds=rounds,
        window_s=window_s,
        figures=list(figures),
        ratios=list(ratios),
        notes=list(notes),
    )


def table(told: Report) -> str:
    """Return a report for a terminal."""
    width = max(len(figure.name) for figure in told.figures)
    head = f"{told.rounds} rounds of {told.window_s:g} s a window"
    out = [
        f"  {told.verb}: {told.machine.cpu}, {told.machine.cores} cores, {told.started_at}, {head}",
        "",
        f"  {'figure':<{width}}      median  spread",
    ]
    for figure in told.figures:
        spread = f"{bars.spread(figure.values):>6.0%}" if len(figure.values) > 1 else "     -"
        out.append(f"  {figure.name:<{width}}  {bars.short(median(figure.values)):>10}  {spread}  {figure.unit}")
    return "\n".join([*out, "", *bars.lines(told.ratios), "", *(f"  {note}" for note in told.notes)])


def run_folder(verb: str) -> Path:
    """Make and return the folder of a run, ``out/<verb>/<time>``.

    Raises:
        BadInput: nothing can be written there.
    """
    out = Path("out", verb, time.strftime("%Y%m%dT%H%M%S", time.gmtime()))
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"cannot write to {out}: {error.strerror}") from error
    return out


def tell(told: Report, out: Path) -> int:
    """Write the report, point ``latest`` at it, print it, and return the exit code: 0 when every bar is met, else 1."""
    path = out / f"{told.verb}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(told)))
    point_latest(out)
    sys.stdout.write(table(told) + f"\n\n  written to {path}\n")
    return 0 if all(ratio.met for ratio in told.ratios) else 1


def check(rounds: int, seconds: float) -> None:
    """Refuse what would take for ever, or show nothing.

    Raises:
        BadInput: with the limits.
    """
    if not 1 <= rounds <= ROUNDS_MOST or not _SECONDS[0] <= seconds <= _SECONDS[1]:
        raise BadInput(
            f"--rounds must be from 1 to {ROUNDS_MOST} and --seconds from {_SECONDS[0]:g} to {_SECONDS[1]:g}"
        )


def rounds_in_time(rounds: int, say: Progress, until_s: float) -> Iterator[int]:
    """Yield the number of each round, from 1, as long as the run is younger than ``until_s``; the first in any case."""
    for number in range(1, rounds + 1):
        if number > 1 and say.elapsed_s > until_s:
            say(f"no more rounds: the machine is slow, and {until_s:g} s are over")
            return
        yield number
