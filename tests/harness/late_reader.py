"""A flash sale played by a generator that stands still for 8 ms whenever it has sent an arrival's first request."""

from __future__ import annotations

import gevent
from gevent.monkey import get_original

from loadtests.generator.plan import Plan
from loadtests.generator.swift import Swift
from loadtests.scenarios import flash_sale

STANDS_STILL_S = 0.008
_stand_still = get_original("time", "sleep")  # Locust's own lets others run
_send = Swift.send


def send(self: Swift, plan: Plan, due_us: int) -> int:
    """Send the arrival's order; the loop's next turn, in which its reply could be read, begins with standing still."""
    gevent.spawn(_stand_still, STANDS_STILL_S)
    return _send(self, plan, due_us)


Swift.send = send  # type: ignore[method-assign]
LateReader = flash_sale.FlashSale
