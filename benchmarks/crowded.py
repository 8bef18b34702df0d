"""A shop that is full beside one that is empty: the same load on both, and the memory that an order takes.

Two shops in one run, measured in turns. The full one has a million unpaid orders, half of them of the SKU that is
loaded, half spread over ten thousand others; the other is emptied before each of its windows. Both servers have the one
core, both Valkeys the other; only one shop is asked at a time, the projectors are held. The journal is dropped between
windows, as the projector does behind its commit.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from benchmarks import bars, fill, pinned, rows
from benchmarks.bars import Ratio
from benchmarks.ceiling import stage
from benchmarks.ceiling.asks import HOT
from benchmarks.counted import ValkeyCounts
from benchmarks.fill import FIRST, Filler, Group
from benchmarks.pinned import Orders, Progress
from benchmarks.rows import Figure
from core.arguments import Arguments
from core.backends.valkey import ROOT
from core.errors import BadInput
from core.ids import Names
from loadtests.shop.deployment import Deployment

CONNECTIONS: Final = 64
RATIO_BAR: Final = 0.93
LIVE_BAR_BYTES: Final = 400.0
FINISHED_BAR_BYTES: Final = 150.0
_ORDERS: Final = (1_000, 2_000_000)  # least and most
_SKUS_MOST: Final = 50_000
_FINISHED_PART: Final = 10  # of the orders, one in so many is finished to see what stays of it
_STEPS: Final = 3  # looks at what is left, at so many sizes
_ROUNDS_UNTIL_S: Final = 170.0
_LIMIT_S: Final = 225.0
NOTES: Final = (
    "Memory: differences of Valkey's used_memory (without the buffers of clients and append-only file), for orders of",
    "buyers of 16 and SKUs of 11 characters. Tables grow in powers of two, so finished orders are looked at in three",
    "sizes. A live order: record, due time, id among its SKU's, its buyer's count. A finished one, in its idempotency",
    "time: record and id, and payment event of a delivered one. Told beside it: the buyer's count, which stays with",
    "the SKU, and the journal, which is gone as soon as PostgreSQL has it. Rewrites of the append-only file are off.",
)


class Memory(msgspec.Struct, frozen=True):
    """Bytes an order takes in Valkey; of finished ones at several sizes."""

    live: list[float]  # of a SKU with half of all orders; of the many others
    journal: list[float]  # beside it, until it is projected
    cancelled: list[float]
    delivered: list[float]  # record, id and payment event
    event: list[float]  # of that: the event
    name: list[float]  # of that: the id among its SKU's
    count: list[float]  # its buyer's count, beside it


class Round(msgspec.Struct, frozen=True):
    """Orders a second on both shops, in turns."""

    empty_per_s: float
    full_per_s: float


def ratios(rounds: Sequence[Round], memory: Memory) -> list[Ratio]:
    """Return the three verdicts; the one of live orders on the mean of hot and spread, told with both."""
    kept = [of.full_per_s / of.empty_per_s for of in rounds]
    return [
        bars.ratio(f"full / empty at {CONNECTIONS}", kept, RATIO_BAR),
        bars.ratio("bytes a live order", memory.live, LIVE_BAR_BYTES, at_most=True),
        bars.ratio("bytes a cancelled order", memory.cancelled, FINISHED_BAR_BYTES, at_most=True),
        bars.ratio("bytes a delivered order", memory.delivered, FINISHED_BAR_BYTES, at_most=True),
    ]


def figures(rounds: Sequence[Round], memory: Memory) -> list[Figure]:
    """Return what there is to read."""
    told = (
        ("live, the hot SKU", memory.live[:1]),
        ("live, the other SKUs", memory.live[1:]),
        ("  + its journal entry", memory.journal),
        ("cancelled", memory.cancelled),
        ("delivered", memory.delivered),
        ("  of it the payment event", memory.event),
        ("  of it its id among its SKU's", memory.name),
        ("  + its buyer's count", memory.count),
    )
    return [
        Figure("accepted, empty", "orders/s", [of.empty_per_s for of in rounds]),
        Figure("accepted, full", "orders/s", [of.full_per_s for of in rounds]),
        *[Figure(name, "bytes an order", values) for name, values in told],
    ]


class Side(NamedTuple):
    """One of the two shops, with all that talks to it."""

    orders: Orders
    counts: ValkeyCounts
    shop: Deployment

    def clear(self) -> None:
        """Forget every order; the products stay."""
        for name in ("live", "due", "facts", "bought", "done", "events", "ids"):
            self.drop(name)

    def drop(self, name: str) -> None:
        """Delete a key of the shard, or all keys of that name by generation or SKU."""
        for pattern in (f"{ROOT}:{name}", f"{ROOT}:{name}:*"):
            if keys := self.counts.ask("KEYS", pattern):
                self.counts.ask("DEL", *keys)

    def bytes_of(self, pattern: str) -> int:
        """Return what keys of the shard take, each looked at in full."""
        keys = self.counts.ask("KEYS", f"{ROOT}:{pattern}")
        return sum(int(self.counts.ask("MEMORY", "USAGE", key, "SAMPLES", 0)) for key in keys)

    @contextlib.contextmanager
    def filler(self, say: Progress) -> Iterator[Filler]:
        """Give what fills this shop."""
        made = Filler(self.shop.settings.valkey_url, Names(self.shop.settings.secret), say)
        try:
            yield made
        finally:
            made.close()


def fill_up(side: Side, orders: int, skus: int, say: Progress) -> dict[str, list[float]]:
    """Fill a shop; return what each order takes, by the fields of ``Memory``."""
    say(f"adding {skus:,} products")
    stage.add(side.shop.settings, [fill.crowd_sku(number) for number in range(skus)])
    found: dict[str, list[float]] = {"live": [], "journal": []}
    for group in fill.crowd(orders, skus):
        before = side.counts.memory()
        say(f"placing {len(group.skus):,} orders of {len(set(group.skus)):,} SKUs")
        with side.filler(say) as filler:
            filler.place(group)
        with_journal = side.counts.memory()
        side.drop("facts")
        after = side.counts.memory()
        found["live"].append((after - before) / len(group.skus))
        found["journal"].append((with_journal - after) / len(group.skus))
    return found


def finish(side: Side, orders: int, say: Progress) -> dict[str, list[float]]:
    """Empty a shop and finish orders on it; return what is left of each, by the fields of ``Memory``."""
    found: dict[str, list[float]] = {name: [] for name in ("cancelled", "delivered", "event", "name", "count")}
    for verb in ("cancelled", "delivered"):
        side.clear()
        before = side.counts.memory()
        for step in range(_STEPS):
            group = Group(FIRST + step * orders // _STEPS, [HOT] * (orders // _STEPS))
            say(f"{verb}: {len(group.skus):,} orders")
            with side.filler(say) as filler:
                filler.place(group)
                if verb == "cancelled":
                    filler.cancel(group)
                else:
                    filler.pay(group)
                    filler.deliver(group)
                filler.trim()
            many = (step + 1) * len(group.skus)
            left = (side.counts.memory() - before) / many
            if verb == "delivered":
                for field, name in (("event", "events:*"), ("name", "ids:*"), ("count", "bought:*")):
                    found[field].append(side.bytes_of(name) / many)
                left -= found["count"][-1]
            found[verb].append(left)
    return found


def measure(empty: Side, full: Side, rounds: int, seconds: float, say: Progress, seed: int) -> list[Round]:
    """Return both rates of every round; who is first is drawn anew for each."""
    draw = random.Random(seed)
    found = []
    for number in rows.rounds_in_time(rounds, say, _ROUNDS_UNTIL_S):
        rates: dict[str, float] = {}
        for name in draw.sample(("empty", "full"), 2):
            say(f"round {number} of {rounds}: the {name} shop")
            if name == "empty":
                empty.clear()
            else:
                full.drop("facts")
            done = (empty if name == "empty" else full).orders.window(seconds)
            rates[name] = done.answers / done.seconds
        found.append(Round(rates["empty"], rates["full"]))
    return found


@contextlib.contextmanager
def _two_shops(folder: Path, cores: tuple[int, int]) -> Iterator[tuple[Side, Side]]:
    """Start both at once; give the one that stays empty and the one to fill."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        started = [stack.enter_context(contextlib.ExitStack()) for _ in range(2)]
        contexts = [pinned.shop(folder / name, cores) for name in ("empty", "full")]
        coming = [pool.submit(one.enter_context, context) for one, context in zip(started, contexts, strict=True)]
        sides = []
        for starting in coming:
            shop, watch = starting.result()
            stack.enter_context(pinned.held(shop.pid("work")))
            counts = ValkeyCounts(shop.settings.valkey_url)
            stack.callback(counts.close)
            counts.ask("CONFIG", "SET", "auto-aof-rewrite-percentage", 0)
            sides.append(Side(Orders(shop, watch, cores[1], connections=CONNECTIONS), counts, shop))
        yield sides[0], sides[1]


def main(argv: Sequence[str]) -> int:
    """Measure accepted orders a second with a million orders there beside none, and Valkey's memory an order.

    Orders come over HTTP on 64 connections. Exit code 0: every bar is met; 1: one is missed; 64: bad usage. The run
    is in out/crowded/latest.
    """
    parser = Arguments(prog="python -m benchmarks crowded", description=main.__doc__)
    parser.add_argument("--orders", type=int, default=1_000_000, metavar="N", help="orders there (default 1000000)")
    parser.add_argument("--skus", type=int, default=10_000, metavar="N", help="products there (default 10000)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="rounds, each with both (default 20)")
    parser.add_argument("--seconds", type=float, default=0.7, metavar="S", help="seconds of one window (default 0.7)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws who is first (default 1)")
    options = parser.parse_args(argv)
    rows.check(options.rounds, options.seconds)
    if not _ORDERS[0] <= options.orders <= _ORDERS[1] or not 1 <= options.skus <= min(_SKUS_MOST, options.orders // 2):
        raise BadInput(
            f"--orders must be from {_ORDERS[0]} to {_ORDERS[1]} and --skus from 1 to half of it, {_SKUS_MOST} at most"
        )
    cores = pinned.two_cores()
    out = rows.run_folder("crowded")
    with Progress(_LIMIT_S) as say, tempfile.TemporaryDirectory(prefix="flashproof-crowded-") as folder:
        say("starting two shops")
        with _two_shops(Path(folder), cores) as (empty, full):
            for side in (empty, full):  # what is made when first asked for is made
                side.orders.window(min(options.seconds, 0.5))
                with side.filler(say):
                    pass
            live = fill_up(full, options.orders, options.skus, say)
            found = measure(empty, full, options.rounds, options.seconds, say, options.seed)
            over = finish(empty, options.orders // _FINISHED_PART, say)
            say("stopping")
    told = Memory(**live, **over)
    return rows.tell(
        rows.report("crowded", len(found), options.seconds, figures(found, told), ratios(found, told), NOTES), out
    )
