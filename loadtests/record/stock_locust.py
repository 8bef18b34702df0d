"""What stock Locust would have said of the same shop: the figure that the corrected one is shown beside.

A stock Locust user asks, waits for the answer, and only then asks again; while the shop stands still so does the
user, and the requests that were due meanwhile are never made (coordinated omission). Here the run's own history is
played to such users: as many as carry the rate while requests take their p90 (Little, A Proof for the Queuing Formula
L = λW, 1961). An arrival is taken by a free user, else its slot is forgotten, as ``constant_throughput`` does. Then
Locust's own arithmetic: from the send, whole milliseconds, rounded to two digits, every outcome in one entry.
It is a model of what was not run, and kinder than the real thing: the users here wake up on time and cost no CPU.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import Final

from loadtests.checkers.answers import is_sent
from loadtests.record.history import Attempt
from loadtests.record.latency import quantile
from loadtests.record.summary import StockLocust

USERS_MOST: Final = 100_000


def stock_locust(firsts: Iterable[Attempt], rate: float) -> StockLocust:
    """Return what the shop's answers would have looked like to stock Locust.

    Args:
        firsts: the first attempt of each arrival.
        rate: arrivals a second of the plan.
    """
    sent = sorted((a.intended_us, a.done_us - a.sent_us) for a in firsts if is_sent(a) and a.sent_us)
    if not sent:
        return StockLocust()
    usual_us = quantile(sorted(service_us for _, service_us in sent), 0.9)
    users = min(USERS_MOST, max(1, math.ceil(rate * usual_us / 1_000_000)))
    free_at = [0] * users
    said_ms = []
    for intended_us, service_us in sent:
        if free_at[0] <= intended_us:
            heapq.heapreplace(free_at, intended_us + service_us)
            said_ms.append(rounded_ms(service_us / 1000))
    said_ms.sort()
    p50, p99, p999 = (percentile_ms(said_ms, share) * 1000 for share in (0.5, 0.99, 0.999))
    return StockLocust(p50=p50, p99=p99, p999=p999, users=users, count=len(said_ms))


def rounded_ms(milliseconds: float) -> int:
    """Return a response time as Locust's statistics keep it: whole ms, from 100 ms on two digits of it."""
    unit: int = 10 ** min(3, max(0, len(str(int(milliseconds))) - 2))
    return round(milliseconds / unit) * unit


def percentile_ms(ascending: list[int], share: float) -> int:
    """Return what Locust prints as a percentile of these rounded times: the one with that share below it."""
    return ascending[min(len(ascending) - 1, int(len(ascending) * share))]
