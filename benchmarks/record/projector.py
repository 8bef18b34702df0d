"""The rows of the projector: how closely PostgreSQL follows a steady sale, and how fast a backlog is made good.

*Sustained*: orders are placed through the shop's own script in batches, one journal entry every few milliseconds, on an
open schedule; `flashproof work`, PostgreSQL, Valkey, an idle server and the driver share the machine. A rate holds when
it was accepted in full and the 99th percentile of the lag (``benchmarks/record/offer.py`` says of what) is within
50 ms.

*Backlog*: the projector is held still, 300,000 orders are placed, it is let go, and the clock runs until PostgreSQL has
committed the last of them. The projector's own way back into its work is in that time.

Not in these rows: payments and deliveries (`delivery`), and buyers' requests, which take their share of a processor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmarks.record.offer import Offer, Offered
from benchmarks.record.result import Book, Figure, Spent, figure, percentile, spent
from benchmarks.record.shop import Meter, Progress, a_shop, held
from benchmarks.record.stage import set_stage
from core.arguments import Arguments
from core.errors import BadInput
from core.ids import Names
from core.settings import BATCH_MOST
from loadtests.shop.deployment import Deployment

LAG_MOST_MS: Final = 50.0
RATE_LEAST: Final = 5_000
DRAIN_MOST_S: Final = 60.0
BACKLOG: Final = 300_000
FIRST: Final = 0  # number of the first order; each verb has its own
_SHARE_LEAST: Final = 0.99  # of the offered rate that must have been accepted
_INTERVAL_S: Final = 0.005  # between two calls
_FILL_BATCH: Final = 100  # orders of one journal entry of the backlog
_FOLLOW_MOST_S: Final = 20.0
_DRAIN_BOUND_S: Final = 90.0
_WARM_S: Final = 1.0


class Steady(NamedTuple):
    """One window at one rate."""

    rate: int
    offered: Offered
    seconds: dict[str, float]

    def lag_ms(self, share: float) -> float:
        """Return a percentile of the lag."""
        return percentile(self.offered.lags_s, share) * 1000

    @property
    def per_s(self) -> float:
        """Orders accepted in a second."""
        return self.offered.orders / self.offered.seconds

    @property
    def holds(self) -> bool:
        """Whether the rate was accepted in full and followed in time."""
        return self.per_s >= self.rate * _SHARE_LEAST and self.lag_ms(0.99) <= LAG_MOST_MS


class Drained(NamedTuple):
    """One backlog made good."""

    orders: int
    drain_s: float
    seconds: dict[str, float]


def _steady(shop: Deployment, offer: Offer, rate: int, seconds: float, say: Progress) -> Steady:
    """Offer one rate for a while, after a short time that does not count."""
    batch = round(rate * _INTERVAL_S)
    for counts, length in ((False, min(_WARM_S, seconds)), (True, seconds)):
        calls = offer.prepare(round(rate * length), batch)
        meter = Meter(shop)

        def still(orders: int, lag_s: float) -> None:
            say.still(f"{rate:,} orders/s: {orders:,} placed, lag {lag_s * 1000:.0f} ms")

        offered = offer.offer(calls, batch / rate, _FOLLOW_MOST_S, still)
        if counts:
            return Steady(rate, offered, meter.read())
    raise AssertionError("unreachable")


def _backlog(shop: Deployment, offer: Offer, orders: int, say: Progress) -> Drained:
    calls = offer.prepare(orders, _FILL_BATCH)
    with held(shop):
        offer.fill(calls, lambda done: say.still(f"backlog: {done:,} of {orders:,} placed"))
        meter = Meter(shop)
        say(f"backlog: {orders:,} placed, the projector goes on")
    drain_s = offer.wait_committed(_DRAIN_BOUND_S, lambda: say.still("backlog: draining"))
    return Drained(orders, drain_s, meter.read())


def figures_of(steady: Sequence[Sequence[Steady]], drained: Drained) -> list[Figure]:
    """Return the figures of all rates (each with its rounds) and of the backlog."""
    held_rates = [windows[0].rate for windows in steady if _holds(windows)]
    found = [
        figure("highest rate that held, of those offered", [max(held_rates, default=0)], "orders/s", least=RATE_LEAST)
    ]
    for windows in steady:
        rate = windows[0].rate
        found.append(figure(f"accepted at {rate:,}/s", [one.per_s for one in windows], "orders/s"))
        for name, share in (("p50", 0.5), ("p99", 0.99), ("greatest", 1.0)):
            # The bar is of one rate: 5,000/s, or in a small run the least that was offered.
            judged = share == 0.99 and rate == steady[0][0].rate
            values = [one.lag_ms(share) for one in windows]
            found.append(figure(f"lag {name} at {rate:,}/s", values, "ms", most=LAG_MOST_MS if judged else None))
        found.append(
            figure(f"driver late at worst at {rate:,}/s", [one.offered.late_s * 1000 for one in windows], "ms")
        )
    found.append(figure(f"backlog of {drained.orders:,} drained in", [drained.drain_s], "s", most=DRAIN_MOST_S))
    found.append(figure("backlog, orders a second", [drained.orders / drained.drain_s], "orders/s"))
    return found


def _holds(windows: Sequence[Steady]) -> bool:
    """Whether most rounds of a rate hold."""
    return sum(one.holds for one in windows) * 2 > len(windows)


def _costs(steady: Sequence[Sequence[Steady]], drained: Drained) -> dict[str, list[Spent]]:
    costs = {
        f"placed and projected at {windows[0].rate:,}/s": spent(
            [one.seconds for one in windows], [one.offered.orders for one in windows]
        )
        for windows in steady
    }
    return costs | {"projected from the backlog": spent([drained.seconds], [drained.orders])}


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Arguments(prog="python -m benchmarks projector", description=main.__doc__)
    parser.add_argument("--rates", default="5000,7500", metavar="N,N", help="orders a second (default 5000,7500)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="windows of each rate (default 3)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of one window (default 10)")
    parser.add_argument("--backlog", type=int, default=BACKLOG, metavar="N", help=f"orders (default {BACKLOG:,})")
    options = parser.parse_args(argv)
    try:
        options.rates = sorted({int(rate) for rate in options.rates.split(",")})
    except ValueError:
        raise BadInput("--rates takes whole numbers with commas between, e.g. --rates 5000,7500") from None
    most = round(BATCH_MOST / _INTERVAL_S)
    if not all(250 <= rate <= most for rate in options.rates):
        raise BadInput(f"--rates must be from 250 to {most:,} orders a second")
    if not 1 <= options.rounds <= 10 or not 0.2 <= options.seconds <= 30:
        raise BadInput("--rounds must be from 1 to 10 and --seconds from 0.2 to 30")
    if not 1 <= options.backlog <= 1_000_000:
        raise BadInput("--backlog must be from 1 to 1,000,000 orders")
    return options


def main(argv: Sequence[str]) -> int:
    """Measure how closely PostgreSQL follows a steady sale, and how fast the projector makes a backlog good.

    Exit code 0: every bar is met; 1: one is missed; 64: bad usage.
    """
    options = _parse(argv)
    book, say = Book("projector"), Progress()
    with a_shop(say) as shop:
        set_stage(shop.settings, 0, say)
        offer = Offer(shop.settings.valkey_url, Names(shop.settings.secret), FIRST)
        try:
            steady = [
                [_steady(shop, offer, rate, options.seconds, say) for _ in range(options.rounds)]
                for rate in options.rates
            ]
            drained = _backlog(shop, offer, options.backlog, say)
        finally:
            offer.close()
        say("stopping the shop")
    asked = {"rounds": options.rounds, "seconds": options.seconds, "backlog": options.backlog}
    words, code = book.close(options.rounds, asked, figures_of(steady, drained), _costs(steady, drained))
    sys.stdout.write(words)
    return code
