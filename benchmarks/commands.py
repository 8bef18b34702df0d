"""How often the stores are asked for one accepted order, counted at the stores, with the projector at work.

A round is a window of orders and the time the projector needs to bring all of them into PostgreSQL: what was asked for
them later is theirs too. What the shop asks by itself in that time (its looks at the clock, the epoch, the journal's
end) is in the count.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import bars, pinned, rows
from benchmarks.bars import Ratio
from benchmarks.counted import PostgresLog, Trips, ValkeyCounts, settle
from benchmarks.pinned import Orders, Progress
from benchmarks.rows import Figure
from core.arguments import Arguments
from core.backends.valkey import ROOT
from core.errors import Fault

CONNECTIONS: Final = 64
VALKEY_BAR: Final = 0.2
POSTGRES_BAR: Final = 0.05
_ROUNDS_UNTIL_S: Final = 120.0
_LIMIT_S: Final = 220.0
_DRAIN_MOST_S: Final = 90.0
_LOOK_S: Final = 0.05
NOTES: Final = (
    "Valkey calls: reads of client sockets (INFO stats), at least one for each call that waits for its answer; what",
    "scripts call inside is no call. PostgreSQL round trips: statements in its own log, BEGIN and COMMIT among them,",
    "and a prepare as one of its own. Orders are placed and projected, not paid; counting ends with the journal empty.",
)


class Round(msgspec.Struct, frozen=True):
    """What one window of orders, projected to the last, has cost."""

    orders: int  # accepted, by Valkey's own count
    reads: int  # Valkey calls
    scripts: int  # of them: script calls, the projector's among them
    trips: Trips
    per_s: float
    drained_s: float  # after the last order


def ratios(rounds: Sequence[Round]) -> list[Ratio]:
    """Return both verdicts."""
    calls, trips = [one.reads / one.orders for one in rounds], [one.trips.total / one.orders for one in rounds]
    return [
        bars.ratio(f"Valkey calls an order at {CONNECTIONS}", calls, VALKEY_BAR, at_most=True),
        bars.ratio(f"PostgreSQL trips an order at {CONNECTIONS}", trips, POSTGRES_BAR, at_most=True),
    ]


def figures(rounds: Sequence[Round]) -> list[Figure]:
    """Return what there is to read."""
    return [
        Figure("accepted, projector at work", "orders/s", [one.per_s for one in rounds]),
        Figure("orders of a round", "", [float(one.orders) for one in rounds]),
        Figure("Valkey calls", "a round", [float(one.reads) for one in rounds]),
        Figure("  of them scripts", "a round", [float(one.scripts) for one in rounds]),
        Figure("PostgreSQL round trips", "a round", [float(one.trips.total) for one in rounds]),
        Figure("  of them BEGIN, COMMIT, …", "a round", [float(one.trips.statement) for one in rounds]),
        Figure("projected", "s after the last order", [one.drained_s for one in rounds]),
    ]


def _wait_until_projected(counts: ValkeyCounts, say: Progress) -> float:
    """Return after how many seconds the journal is empty."""
    began = time.monotonic()
    while left := int(counts.ask("XLEN", f"{ROOT}:facts")):
        if time.monotonic() - began > _DRAIN_MOST_S:
            raise Fault(f"the projector did not come to the journal's end within {_DRAIN_MOST_S:g} s")
        say.about(f"projecting: {left:,} entries left")
        time.sleep(_LOOK_S)
    return time.monotonic() - began


def measure(
    orders: Orders, counts: ValkeyCounts, log: PostgresLog, rounds: int, seconds: float, say: Progress
) -> list[Round]:
    """Return what each round has cost."""
    found = []
    for number in rows.rounds_in_time(rounds, say, _ROUNDS_UNTIL_S):
        say(f"round {number} of {rounds}: placing")
        mark, before = log.mark(), counts.look()
        done = orders.window(seconds)
        drained_s = _wait_until_projected(counts, say)
        settle()  # the last commit is in the log
        after, trips = counts.look(), log.since(mark)
        found.append(
            Round(
                orders=after.live - before.live,
                reads=after.reads - before.reads,
                scripts=after.scripts - before.scripts,
                trips=trips,
                per_s=done.answers / done.seconds,
                drained_s=drained_s,
            )
        )
    return found


def main(argv: Sequence[str]) -> int:
    """Count Valkey calls and PostgreSQL round trips for each accepted order, at the servers.

    Orders come over HTTP on 64 connections and the projector is at work. Exit code 0: both bars are met; 1: one is
    missed; 64: bad usage. The run is in out/commands/latest.
    """
    parser = Arguments(prog="python -m benchmarks commands", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="seconds of one window (default 2)")
    options = parser.parse_args(argv)
    rows.check(options.rounds, options.seconds)
    cores = pinned.two_cores()
    out = rows.run_folder("commands")
    with Progress(_LIMIT_S) as say, tempfile.TemporaryDirectory(prefix="flashproof-commands-") as folder:
        say("starting the shop")
        with pinned.shop(Path(folder), cores) as (shop, watch):
            counts = ValkeyCounts(shop.settings.valkey_url)
            orders = Orders(shop, watch, cores[1], connections=CONNECTIONS)
            orders.window(min(options.seconds, 0.5))  # statements are prepared, scripts are loaded
            _wait_until_projected(counts, say)
            log = PostgresLog(shop.settings.postgres_dsn, shop.log_file("postgres"))
            found = measure(orders, counts, log, options.rounds, options.seconds, say)
            counts.close()
    told = rows.report("commands", len(found), options.seconds, figures(found), ratios(found), NOTES)
    return rows.tell(told, out)
