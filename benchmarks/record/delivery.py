"""The row of delivery: from a payment's callback to the key in its buyer's hands, at a fixed rate of payments.

A real server (one worker), `flashproof work`, both stores and the driver share the machine; the driver keeps to one
core. Every order is a buyer's of its own: placed over HTTP, asked about at once with `?wait=`, and paid a moment later
by a signed callback, on an open schedule: payments go out at their planned instants, whatever was answered before. Keys
were imported by the real importer.

Paid to key = from just before the callback is sent to just after the answer that shows the key has been read, both by
the driver's clock. It holds the callback's own way into Valkey, the projector's turn, PostgreSQL's commit, the wake-up,
the reading and opening of the key, and the answer's way back.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from benchmarks.record.client import Arrived, Client, Line, raise_files
from benchmarks.record.requests import Requests
from benchmarks.record.result import Book, Figure, figure, percentile, spent
from benchmarks.record.shop import Meter, Progress, a_shop
from benchmarks.record.stage import set_stage
from core.arguments import Arguments
from core.errors import BadInput, Fault
from core.settings import WAIT_MOST_S
from loadtests.shop.deployment import Deployment

KEY_MOST_MS: Final = 200.0
RATE: Final = 1_000
FIRST: Final = 300_000_000  # number of the first order; each verb has its own
_SHARE_LEAST: Final = 0.99  # of the planned payments a second that must have gone out
_LEAD_S: Final = 0.3  # an order is placed so long before its payment is due
_WARM_S: Final = 1.0
_FOLLOW_MOST_S: Final = 20.0
_NAP_S: Final = 0.001
_OVERLOADED: Final = 503
_AGAIN_S: Final = 0.05


class _Seen(msgspec.Struct):
    """What the driver reads of an order's answer."""

    state: str
    keys: list[str] = []


_seen = msgspec.json.Decoder(_Seen)


class Paid(NamedTuple):
    """One window."""

    keys_s: list[float]  # from callback to key
    per_s: float  # payments sent
    late_s: float  # by how much the driver was late at worst
    orders: int  # with the warming up, as the processor times
    asked_again: int  # requests that met an overload
    seconds: dict[str, float]


class _Window:
    """One window of the open schedule. Numbers are orders; the schedule's instants follow from them."""

    def __init__(self, client: Client, requests: Requests, first: int, orders: int, rate: float) -> None:
        self._client, self._requests = client, requests
        self._first, self._end, self._rate = first, first + orders, rate
        self._buyers: deque[Line] = deque()  # idle connections
        self._gateways: deque[Line] = deque()
        self._placing, self._paying = first, first  # the next ones
        self._accepted: set[int] = set()
        self._again: deque[tuple[float, Line]] = deque()  # asked again at that instant
        self.asked_again = 0
        self.sent: dict[int, float] = {}
        self.keys: dict[int, float] = {}
        self.given: set[str] = set()
        self.late_s = 0.0

    def run(self, say: Progress) -> None:
        """Go through the schedule and wait for every key.

        Raises:
            Fault: an answer is wrong, or keys are still missing long after the last payment.
        """
        began = time.time()
        ends = began + _LEAD_S + (self._end - self._first) / self._rate + _FOLLOW_MOST_S
        while len(self.keys) < self._end - self._first:
            now = time.time()
            self._send_due(began, now)
            for answer in self._client.arrived(_NAP_S):
                self._take(answer)
            if now > ends:
                raise Fault(
                    f"{self._end - self._first - len(self.keys)} orders got no key within {_FOLLOW_MOST_S:.0f} s"
                )
            say.still(f"{len(self.sent):,} paid, {len(self.keys):,} keys shown")

    def _send(self, line: Line, what: str, number: int) -> None:
        line.about = (what, number)
        if what == "place":
            line.send(self._requests.place(number))
        elif what == "pay":
            line.send(self._requests.callback(number))
        else:
            line.send(self._requests.wait(number, int(WAIT_MOST_S)))

    def _send_due(self, began: float, now: float) -> None:
        while self._again and self._again[0][0] <= now:
            line = self._again.popleft()[1]
            self._send(line, *line.about)
        while self._placing < self._end and now >= began + (self._placing - self._first) / self._rate:
            line = self._buyers.popleft() if self._buyers else self._client.open()
            self._send(line, "place", self._placing)
            self._placing += 1
        while self._paying < self._placing:
            due = began + _LEAD_S + (self._paying - self._first) / self._rate
            if now < due or self._paying not in self._accepted:  # who is not accepted yet cannot be paid
                return
            line = self._gateways.popleft() if self._gateways else self._client.open()
            self.sent[self._paying] = now = time.time()
            self.late_s = max(self.late_s, now - due)
            self._send(line, "pay", self._paying)
            self._paying += 1

    def _take(self, answer: Arrived) -> None:
        line, (what, number) = answer.line, answer.line.about
        if answer.status == _OVERLOADED:  # nothing was changed; the same is asked again, as buyers and gateways do
            self.asked_again += 1
            self._again.append((answer.at + _AGAIN_S, line))
            return
        if answer.status not in (200, 201):
            raise Fault(f"{what} was answered {answer.status}: {answer.body.decode(errors='replace')[:200]}")
        if what == "pay":
            self._gateways.append(line)
            return
        if what == "place":
            self._accepted.add(number)
        else:
            seen = _seen.decode(answer.body)
            if seen.keys:
                self.keys[number] = answer.at
                self.given.update(seen.keys)
                self._buyers.append(line)
                return
        self._send(line, "wait", number)


def _window(
    shop: Deployment, client: Client, requests: Requests, first: int, rate: int, seconds: float, say: Progress
) -> Paid:
    """Measure one window; its first part only warms up."""
    warm, orders = round(min(_WARM_S, seconds) * rate), round(rate * seconds)
    meter = Meter(shop)
    window = _Window(client, requests, first, warm + orders, rate)
    window.run(say)
    counted = range(first + warm, first + warm + orders)
    if len(window.given) != warm + orders:
        raise Fault(f"{warm + orders:,} orders show {len(window.given):,} different keys")
    sent = [window.sent[number] for number in counted]
    keys_s = [window.keys[number] - at for number, at in zip(counted, sent, strict=True)]
    per_s = (orders - 1) / (sent[-1] - sent[0]) if orders > 1 else 0.0
    return Paid(keys_s, per_s, window.late_s, warm + orders, window.asked_again, meter.read())


def figures_of(windows: Sequence[Paid], rate: int) -> list[Figure]:
    """Return the figures of all rounds."""
    found = [figure("payments sent", [one.per_s for one in windows], "payments/s", least=rate * _SHARE_LEAST)]
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("greatest", 1.0)):
        values = [percentile(one.keys_s, share) * 1000 for one in windows]
        found.append(figure(f"paid to key, {name}", values, "ms", most=KEY_MOST_MS if share == 0.99 else None))
    found.append(figure("driver late at worst", [one.late_s * 1000 for one in windows], "ms"))
    found.append(figure("refused for overload and asked again", [one.asked_again for one in windows], "requests"))
    return found


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Arguments(prog="python -m benchmarks delivery", description=main.__doc__)
    parser.add_argument("--rate", type=int, default=RATE, metavar="N", help=f"payments a second (default {RATE:,})")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="windows (default 3)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of one window (default 10)")
    options = parser.parse_args(argv)
    if not 1 <= options.rounds <= 10 or not 0.2 <= options.seconds <= 30:
        raise BadInput("--rounds must be from 1 to 10 and --seconds from 0.2 to 30")
    if not 10 <= options.rate <= 5_000:
        raise BadInput("--rate must be from 10 to 5,000 payments a second")
    return options


def main(argv: Sequence[str]) -> int:
    """Measure from the payment's callback to the key in its buyer's hands, at a fixed rate of payments.

    Exit code 0: every bar is met; 1: one is missed; 64: bad usage.
    """
    options = _parse(argv)
    book, say = Book("delivery"), Progress()
    raise_files(5_000)
    with a_shop(say) as shop:
        each = round(options.rate * (options.seconds + min(_WARM_S, options.seconds)))
        set_stage(shop.settings, each * options.rounds, say)
        windows = _measure(shop, options, each, say)
        say("stopping the shop")
    figures = figures_of(windows, options.rate)
    costs = {"placed, paid, delivered, shown": spent([one.seconds for one in windows], [one.orders for one in windows])}
    asked = {"rounds": options.rounds, "seconds": options.seconds, "rate": options.rate}
    words, code = book.close(options.rounds, asked, figures, costs)
    sys.stdout.write(words)
    return code


def _measure(shop: Deployment, options: argparse.Namespace, each: int, say: Progress) -> list[Paid]:
    """Return the windows of all rounds, driven from one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    requests, windows = Requests(shop.settings), []
    try:
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}: {options.rate:,} payments a second")
            client = Client(shop.settings.port)
            try:
                windows.append(
                    _window(shop, client, requests, FIRST + number * each, options.rate, options.seconds, say)
                )
            finally:
                client.close()
    finally:
        os.sched_setaffinity(0, cores)
    return windows
