"""What a row of the record says: figures with their spread, bars, processor time by role; for a screen and as JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from core.errors import BadInput
from loadtests.machine import Machine, describe_machine, git_commit, point_latest

EXIT_MISSED: Final = 1


class Figure(msgspec.Struct, frozen=True):
    """One figure over all rounds, and whether it holds its bar. ``bar`` None: it is only told."""

    name: str
    value: float  # median of the rounds
    least: float
    greatest: float
    unit: str
    bar: float | None
    at_most: bool
    met: bool
    note: str = ""


class Spent(msgspec.Struct, frozen=True):
    """Processor time of one role for one order, in µs: over all rounds, and its spread."""

    role: str
    us: float
    least: float
    greatest: float


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run, as its JSON file."""

    schema: int = 1
    verb: str
    started_at: str
    git_commit: str
    machine: Machine
    load_before: float  # how busy the machine was with others: its load average when the run began
    rounds: int
    asked: dict[str, float]
    figures: list[Figure]
    spent: dict[str, list[Spent]]  # by what was done


def figure(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    most: float | None = None,
    least: float | None = None,
    note: str = "",
) -> Figure:
    """Return a figure of one value a round; its median must be at ``most``, or at ``least``, that much."""
    value = median(values)
    met = (most is None or value <= most) and (least is None or value >= least)
    bar = most if most is not None else least
    return Figure(name, value, min(values), max(values), unit, bar, most is not None, met, note)


def spent(rounds: Sequence[dict[str, float]], orders: Sequence[int]) -> list[Spent]:
    """Return what each role spent on an order, from its seconds in every round."""
    found = []
    for role in rounds[0]:
        each = [seconds[role] / max(1, count) * 1e6 for seconds, count in zip(rounds, orders, strict=True)]
        found.append(Spent(role, median(each), min(each), max(each)))
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that ``share`` of all values (0 to 1) do not exceed; 0 of none."""
    ranked = sorted(values)
    return ranked[max(0, -(-round(len(ranked) * share * 1e6) // 1_000_000) - 1)] if ranked else 0.0


class Book:
    """Where a run is written: made before it begins, so that a run that took minutes is not lost in the end."""

    def __init__(self, verb: str) -> None:
        """Make ``out/<verb>/<stamp>``.

        Raises:
            BadInput: it cannot be written there.
        """
        self._verb = verb
        self._began = time.gmtime()
        self._load = os.getloadavg()[0]
        self.folder = Path("out") / verb / time.strftime("%Y%m%dT%H%M%S", self._began)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise BadInput(
                f"cannot write to {self.folder}: {error.strerror}; run it where out/ may be written"
            ) from error

    def close(
        self, rounds: int, asked: dict[str, float], figures: list[Figure], costs: dict[str, list[Spent]]
    ) -> tuple[str, int]:
        """Write the run, let ``latest`` point at it; return the words for the screen and the exit code."""
        rows = Rows(
            verb=self._verb,
            started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", self._began),
            git_commit=git_commit(),
            machine=describe_machine(),
            load_before=self._load,
            rounds=rounds,
            asked=asked,
            figures=figures,
            spent=costs,
        )
        file = self.folder / f"{self._verb}.json"
        file.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
        point_latest(self.folder)
        words = table(rows) + f"\n\n  written to {file}\n"
        return words, 0 if all(one.met for one in figures) else EXIT_MISSED


def table(rows: Rows) -> str:
    """Return a run for a terminal."""
    lines = [
        f"  {rows.verb}: {rows.machine.cpu}, {rows.machine.cores} cores, {rows.machine.kernel}, {rows.started_at}",
        f"  load of the machine before it began: {rows.load_before:.1f}; rounds: {rows.rounds}",
        "",
        "  figure                                             median (least to greatest)           bar",
    ]
    for one in rows.figures:
        said = f"{_number(one.value)} ({_number(one.least)} to {_number(one.greatest)}) {one.unit}"
        bar = ""
        if one.bar is not None:
            bar = f"{'≤' if one.at_most else '≥'} {_number(one.bar):<7} {'met' if one.met else 'MISSED'}"
        lines.append(f"  {one.name:<50} {said:<36} {bar}".rstrip())
        if one.note:
            lines.append(f"      {one.note}")
    for done, costs in rows.spent.items():
        lines += ["", f"  processor time an order, µs: {done}"]
        lines += [f"    {cost.role:<10} {cost.us:7.1f} ({cost.least:.1f} to {cost.greatest:.1f})" for cost in costs]
        lines.append(f"    {'all':<10} {sum(cost.us for cost in costs):7.1f}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
