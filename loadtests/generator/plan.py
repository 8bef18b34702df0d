"""What each arrival does, from (seed, number) alone: the same seed gives the same crowd, whatever happens.

Buyers as they are: most pay at once and wait for their key; some click twice, send the same key with another
order, ask beyond their limit, never pay, pay too late or cancel; and gateways repeat themselves.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final, Literal

import msgspec

BUYER_LIMIT: Final = 2  # units one buyer may have of one product; the catalog of the run must say the same
HOT_SHARE: Final = 0.85  # arrivals that want the hot SKU
TWO_UNITS_SHARE: Final = 0.10
AGAIN_SHARE: Final = 0.05  # the same request once more: half of them at the same time, half straight after
CONFLICT_SHARE: Final = 0.02  # the same idempotency key with another order
GREEDY_SHARE: Final = 0.02  # an earlier buyer comes again
TOO_MANY_SHARE: Final = 0.01  # more in one order than a buyer may have
NEVER_PAY_SHARE: Final = 0.10
PAY_LATE_SHARE: Final = 0.02
CANCEL_SHARE: Final = 0.02
TWICE_SHARE: Final = 0.02  # the paid callback twice: half of them at once, half seconds later
STARTED_SHARE: Final = 0.01  # a `started` callback that arrives after the `paid` one
WATCH_EARLY_SHARE: Final = 0.40  # payers who wait for their key from before they pay
WATCH_AFTER_SHARE: Final = 0.40  # payers who wait from after they paid
POLL_SHARE: Final = 0.15  # payers who look once, a second later; the rest never look
THINK_MOST_US: Final = 500_000  # from the answer to paying, unless the run says otherwise
GREEDY_REACH: Final = 1_000  # how far back the earlier buyer of a greedy arrival may be
_WHOLE: Final = 2**32
_DRAWS: Final = struct.Struct("<16I")

Ending = Literal["pay", "never", "late", "cancel"]
Watch = Literal["early", "after", "poll", "none"]
Callbacks = Literal["once", "twice", "twice_later", "started_after"]


def _choice(*shares: tuple[float, str], rest: str) -> Callable[[int], Any]:
    """Return what picks a word by a 32-bit draw, each with its share, else ``rest``."""
    edges = tuple(int(edge * _WHOLE) for edge in accumulate(share for share, _ in shares))
    words = (*(word for _, word in shares), rest)
    return lambda draw: words[bisect_right(edges, draw)]


_AGAIN: Final = _choice((AGAIN_SHARE / 2, "at_once"), (AGAIN_SHARE / 2, "after"), rest="")
_ENDING: Final = _choice((NEVER_PAY_SHARE, "never"), (PAY_LATE_SHARE, "late"), (CANCEL_SHARE, "cancel"), rest="pay")
_WATCH: Final = _choice((WATCH_EARLY_SHARE, "early"), (WATCH_AFTER_SHARE, "after"), (POLL_SHARE, "poll"), rest="none")
_CALLBACKS: Final = _choice(
    (TWICE_SHARE / 2, "twice"), (TWICE_SHARE / 2, "twice_later"), (STARTED_SHARE, "started_after"), rest="once"
)


class Plan(msgspec.Struct, frozen=True, gc=False):
    """One arrival. Durations are µs."""

    number: int
    why: Literal["first", "over_limit"]
    buyer: str
    sku: str
    quantity: int
    idempotency_key: str
    again: Literal["", "at_once", "after"]
    conflict: tuple[str, int] | None  # the other order (sku, quantity) under the same key
    ending: Ending
    think_us: int  # from the answer to paying or cancelling
    late_us: int  # from pay_by to paying, for the late
    watch: Watch
    callbacks: Callbacks
    gap_us: int  # until the callback that comes later
    jitter: float  # 0..1, for this buyer's pauses between retries


class Crowd:
    """All arrivals of one seed."""

    __slots__ = ("_cold", "_hot", "_seed", "_state", "_think_most_us")

    def __init__(self, seed: int, hot_sku: str, cold: int, think_most_us: int = THINK_MOST_US) -> None:
        """Take the seed, the hot SKU, the number of cold SKUs (``cold_skus`` names them), and how long buyers take at
        most from the answer to paying (µs; uniform from 0).
        """
        self._think_most_us = think_most_us
        self._seed, self._hot, self._cold = seed, hot_sku, cold_skus(cold)
        self._state = hashlib.blake2b(f"crowd {seed} ".encode(), digest_size=_DRAWS.size)

    def plan(self, number: int) -> Plan:
        """Return what arrival ``number`` does. Some microseconds, no state."""
        draws = self._draws(number)
        want, two, again, conflict, limit, ending, think, late, watch, calls, gap, jitter, other = draws[:13]
        sku, buyer, why = self._sku(want), f"b{self._seed}-{number}", "first"
        quantity = 2 if two < TWO_UNITS_SHARE * _WHOLE else 1
        if limit < TOO_MANY_SHARE * _WHOLE:
            why, quantity = "over_limit", BUYER_LIMIT + 1
        elif limit < (TOO_MANY_SHARE + GREEDY_SHARE) * _WHOLE and number > 0:
            # The whole limit for someone who may hold something: refused if that earlier order stands.
            earlier = self.plan(number - 1 - other % min(number, GREEDY_REACH))
            why, quantity, buyer, sku = "over_limit", BUYER_LIMIT, earlier.buyer, earlier.sku
        other_order = None
        if conflict < CONFLICT_SHARE * _WHOLE:
            swap = self._cold[other % len(self._cold)] if self._cold and other & 1 else sku
            other_order = (swap, quantity) if swap != sku else (sku, 3 - min(quantity, 2))
        return Plan(
            number=number,
            why=why,  # type: ignore[arg-type]  # one of the two words above
            buyer=buyer,
            sku=sku,
            quantity=quantity,
            idempotency_key=f"k{self._seed}-{number}",
            again=_AGAIN(again),
            conflict=other_order,
            ending=_ENDING(ending),
            think_us=think * self._think_most_us // _WHOLE,
            late_us=300_000 + late * 700_000 // _WHOLE,
            watch=_WATCH(watch),
            callbacks=_CALLBACKS(calls),
            gap_us=1_000_000 + gap * 2_000_000 // _WHOLE,
            jitter=jitter / _WHOLE,
        )

    def _sku(self, draw: int) -> str:
        if draw < HOT_SHARE * _WHOLE or not self._cold:
            return self._hot
        return self._cold[draw % len(self._cold)]

    def _draws(self, number: int) -> tuple[int, ...]:
        """Return 16 independent 32-bit numbers: one keyed hash is cheaper than seeding a generator."""
        state = self._state.copy()
        state.update(number.to_bytes(8, "little"))
        return _DRAWS.unpack(state.digest())


def cold_skus(count: int) -> tuple[str, ...]:
    """Return the names of the cold SKUs: ``cold-000``, ``cold-001``, …"""
    return tuple(f"cold-{number:03d}" for number in range(count))


def backoff_us(tries: int, jitter: float, base_us: int = 100_000, most_us: int = 2_000_000) -> int:
    """Return the pause before retry ``tries`` (from 1): doubling, bounded, spread over 50..100 % of itself."""
    return int(min(most_us, base_us * 2 ** min(tries - 1, 20)) * (0.5 + jitter / 2))
