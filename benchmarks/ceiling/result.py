"""What a ceiling run says: rows, ratios inside a round, bars, and a table for one screen."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Final

import msgspec

from benchmarks import bars
from benchmarks.bars import Ratio
from benchmarks.ceiling.driver import Done
from loadtests.machine import Machine, describe_machine, git_commit


class Window(msgspec.Struct, frozen=True):
    """One row measured once."""

    name: str
    connections: int | None
    per_s: float
    server_cpu_us: float  # per answer
    valkey_cpu_us: float
    driver_share: float

    @classmethod
    def of(cls, name: str, connections: int | None, done: Done, server: str) -> Window:
        """Read a driver's words; ``server`` is whose processor time counts as the server's."""
        each = max(done.answers, 1)
        uses_valkey = server in ("", "core")
        return cls(
            name,
            connections,
            done.answers / done.seconds,
            done.cpu_us.get(server, 0.0) / each,
            done.cpu_us["valkey"] / each if uses_valkey else 0.0,
            done.driver_share,
        )


class Row(msgspec.Struct, frozen=True):
    """A row over all rounds: medians; the spread is (greatest - least) / median."""

    name: str
    connections: int | None
    per_s: float
    per_s_spread: float
    server_cpu_us: float
    valkey_cpu_us: float
    driver_share: float


class Ceiling(msgspec.Struct, frozen=True):
    """A whole run, as ``ceiling.json``."""

    schema: int
    started_at: str
    git_commit: str
    machine: Machine
    rounds: int
    window_s: float
    rows: list[Row]
    ratios: list[Ratio]


Cells = dict[tuple[str, int | None], Window]


def _over(top: str, bottom: str, connections: int) -> Callable[[Cells], float]:
    return lambda cells: cells[top, connections].per_s / cells[bottom, connections].per_s


def _cpu(name: str, connections: int) -> Callable[[Cells], float]:
    return lambda cells: cells[name, connections].server_cpu_us + cells[name, connections].valkey_cpu_us


# name, how it is made from one round, bar, whether the bar is a most
BARS: Final[tuple[tuple[str, Callable[[Cells], float], float, bool], ...]] = (
    ("place_accepted / aiohttp at 64", _over("place_accepted", "aiohttp", 64), 2.5, False),
    ("place_accepted / aiohttp at 256", _over("place_accepted", "aiohttp", 256), 3.0, False),
    ("place_accepted / nginx at 256", _over("place_accepted", "nginx", 256), 0.33, False),
    ("place_sold_out / aiohttp at 64", _over("place_sold_out", "aiohttp", 64), 3.5, False),
    ("place_sold_out / aiohttp at 256", _over("place_sold_out", "aiohttp", 256), 3.5, False),
    ("server + Valkey µs an order at 256", _cpu("place_accepted", 256), 28.0, True),
)


def ceiling_of(rounds: list[list[Window]], window_s: float) -> Ceiling:
    """Return the rows and ratios of all rounds."""
    cells: list[Cells] = [{(one.name, one.connections): one for one in windows} for windows in rounds]
    rows = [_row([of[key] for of in cells]) for key in sorted(cells[0], key=_place_in_table)]
    ratios = [bars.ratio(name, [make(of) for of in cells], bar, at_most=at_most) for name, make, bar, at_most in BARS]
    return Ceiling(
        schema=1,
        started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        git_commit=git_commit(),
        machine=describe_machine(),
        rounds=len(rounds),
        window_s=window_s,
        rows=rows,
        ratios=ratios,
    )


_ORDER: Final = (
    "nginx",
    "protocol",
    "aiohttp",
    "place_accepted",
    "place_sold_out",
    "callback",
    "status",
    "valkey_script",
)


def _place_in_table(key: tuple[str, int | None]) -> tuple[int, int]:
    return _ORDER.index(key[0]), key[1] or 0


def _row(windows: list[Window]) -> Row:
    rates = [window.per_s for window in windows]
    return Row(
        windows[0].name,
        windows[0].connections,
        median(rates),
        bars.spread(rates),
        median(window.server_cpu_us for window in windows),
        median(window.valkey_cpu_us for window in windows),
        median(window.driver_share for window in windows),
    )


def table(result: Ceiling) -> str:
    """Return rows and ratios for a terminal."""
    lines = [
        f"  {result.machine.cpu}, {result.machine.cores} cores, {result.rounds} rounds of {result.window_s:g} s a row",
        "",
        "  row              conns       /s  spread   server µs  Valkey µs   driver busy",
    ]
    for row in result.rows:
        at = "-" if row.connections is None else str(row.connections)
        server = f"{row.server_cpu_us:9.1f}" if row.server_cpu_us else "        -"
        valkey = f"{row.valkey_cpu_us:9.1f}" if row.valkey_cpu_us else "        -"
        lines.append(
            f"  {row.name:<15} {at:>6} {row.per_s:>8,.0f}   {row.per_s_spread:>4.0%}   {server}  {valkey}   "
            f"{row.driver_share:>10.0%}"
        )
    return "\n".join([*lines, "", *bars.lines(result.ratios), _least(result.rows)])


def _least(rows: list[Row]) -> str:
    """Return what an order would take if the core did nothing with it and its script were fed without a server."""
    protocol = next(row.server_cpu_us for row in rows if (row.name, row.connections) == ("protocol", 256))
    script = next(row.valkey_cpu_us for row in rows if row.name == "valkey_script")
    return (
        f"  (a bare protocol's request and the script alone: {bars.short(protocol)} + {bars.short(script)} = "
        f"{bars.short(protocol + script)} µs)"
    )
