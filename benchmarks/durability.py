"""What the promise costs: accepted orders on disk before their answer, beside a disk asked once a second.

One shop, one load; ``appendfsync`` is changed between windows, so that both settings meet the same noise (the shop
asserts Valkey's settings at boot alone). The projector is held: what is measured is the path to *accepted*, and nobody
but the one worker calls scripts. strace, used once to see, found as many fdatasync as there were script calls.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import bars, pinned, rows
from benchmarks.bars import Ratio
from benchmarks.counted import Counts, ValkeyCounts, settle
from benchmarks.pinned import Orders, Progress
from benchmarks.rows import Figure
from core.arguments import Arguments

MODES: Final = ("always", "everysec")
CONNECTIONS: Final = 64
RATIO_BAR: Final = 0.8
ORDERS_PER_FSYNC_BAR: Final = 10.0
_ROUNDS_UNTIL_S: Final = 150.0
_LIMIT_S: Final = 220.0
NOTES: Final = (
    "Valkey has no counter of fsyncs. With `always` it syncs at most once for each turn of its loop that wrote, and",
    "each turn that wrote ran at least one script: script calls are an upper bound of fsyncs, so the orders per script",
    "call told here are a lower bound of the orders per fsync. Rewrites of the append-only file are off meanwhile.",
)


class Window(msgspec.Struct, frozen=True):
    """One setting measured once."""

    per_s: float
    orders: int  # accepted, by Valkey's own count, warming up included
    scripts: int  # script calls that brought them


Round = dict[str, Window]  # by the setting


def window(per_s: float, before: Counts, after: Counts) -> Window:
    """Return what one window showed, from its driver and the counters around it."""
    return Window(per_s, after.live - before.live, after.scripts - before.scripts)


def ratios(rounds: Sequence[Round]) -> list[Ratio]:
    """Return both verdicts; a ratio is taken inside its round."""
    kept = [of["always"].per_s / of["everysec"].per_s for of in rounds]
    batches = [of["always"].orders / of["always"].scripts for of in rounds]
    return [
        bars.ratio(f"always / everysec at {CONNECTIONS}", kept, RATIO_BAR),
        bars.ratio(f"orders per fsync at {CONNECTIONS}, at least", batches, ORDERS_PER_FSYNC_BAR),
    ]


def figures(rounds: Sequence[Round]) -> list[Figure]:
    """Return what there is to read."""
    told = [Figure(f"accepted, {mode}", "orders/s", [of[mode].per_s for of in rounds]) for mode in MODES]
    told += [Figure(f"batch, {mode}", "orders a script call", [_batch(of[mode]) for of in rounds]) for mode in MODES]
    calls = [of["always"].per_s / _batch(of["always"]) for of in rounds]
    return [*told, Figure("fsyncs, always, at most", "/s", calls)]


def _batch(one: Window) -> float:
    return one.orders / one.scripts


def measure(orders: Orders, counts: ValkeyCounts, rounds: int, seconds: float, say: Progress, seed: int) -> list[Round]:
    """Return the windows of every round, in an order that is drawn anew for each."""
    draw = random.Random(seed)
    found = []
    for number in rows.rounds_in_time(rounds, say, _ROUNDS_UNTIL_S):
        of: Round = {}
        for mode in draw.sample(MODES, len(MODES)):
            say(f"round {number} of {rounds}: appendfsync {mode}")
            counts.ask("CONFIG", "SET", "appendfsync", mode)
            before = counts.look()
            done = orders.window(seconds)
            settle()
            of[mode] = window(done.answers / done.seconds, before, counts.look())
        found.append(of)
    counts.ask("CONFIG", "SET", "appendfsync", MODES[0])
    return found


def main(argv: Sequence[str]) -> int:
    """Measure accepted orders a second with `appendfsync always` beside `everysec`, and orders per fsync.

    Orders come over HTTP on 64 connections; the server has one core, Valkey and the driver share another. Exit code
    0: both bars are met; 1: one is missed; 64: bad usage. The run is in out/durability/latest.
    """
    parser = Arguments(prog="python -m benchmarks durability", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="rounds, each with both (default 20)")
    parser.add_argument("--seconds", type=float, default=0.7, metavar="S", help="seconds of one window (default 0.7)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws who is first (default 1)")
    options = parser.parse_args(argv)
    rows.check(options.rounds, options.seconds)
    cores = pinned.two_cores()
    out = rows.run_folder("durability")
    with Progress(_LIMIT_S) as say, tempfile.TemporaryDirectory(prefix="flashproof-durability-") as folder:
        say("starting the shop")
        with pinned.shop(Path(folder), cores) as (shop, watch), pinned.held(shop.pid("work")):
            counts = ValkeyCounts(shop.settings.valkey_url)
            counts.ask("CONFIG", "SET", "auto-aof-rewrite-percentage", 0)
            orders = Orders(shop, watch, cores[1], connections=CONNECTIONS)
            orders.window(min(options.seconds, 0.5))  # what is made when first asked for is made
            found = measure(orders, counts, options.rounds, options.seconds, say, options.seed)
            counts.close()
    told = rows.report("durability", len(found), options.seconds, figures(found), ratios(found), NOTES)
    return rows.tell(told, out)
