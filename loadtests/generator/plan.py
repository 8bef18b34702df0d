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

from loadtests.generator.manners import THINK_MOST_US, Manners

BUYER_LIMIT: Final = 2  # units one buyer may have of one product, unless the stage says otherwise
GREEDY_REACH: Final = 1_000  # how far back the earlier buyer of a greedy arrival may be
_WHOLE: Final = 2**32
_DRAWS: Final = struct.Struct("<16I")

Ending = Literal["pay", "never", "late", "cancel"]
Watch = Literal["early", "after", "poll", "none"]
Callbacks = Literal["once", "twice", "twice_later", "started_after"]
Retries = Literal["patient", "budget", "no_budget"]


def _choice(*shares: tuple[float, str], rest: str) -> Callable[[int], Any]:
    """Return what picks a word by a 32-bit draw, each with its share, else ``rest``."""
    edges = tuple(int(edge * _WHOLE) for edge in accumulate(share for share, _ in shares))
    words = (*(word for _, word in shares), rest)
    return lambda draw: words[bisect_right(edges, draw)]


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
    think_us: int  # from the order's instant to paying or cancelling
    late_us: int  # from pay_by to paying, for the late
    watch: Watch
    callbacks: Callbacks
    gap_us: int  # until the callback that comes later
    jitter: float  # 0..1, for this buyer's pauses between retries
    looks: tuple[str, ...] = ()  # pages looked at before ordering, the last the wanted product's; "": the list
    look_us: int = 0  # from one to the next, and to ordering
    come_back_us: int = 0  # told sold_out, asks again so long after its last instant; 0: does not
    retries: Retries = "patient"


class Crowd:
    """All arrivals of one seed."""

    __slots__ = (
        "_again",
        "_callbacks",
        "_cold",
        "_edges",
        "_ending",
        "_limit",
        "_manners",
        "_state",
        "_think_most_us",
        "_watch",
        "hot_sku",
        "stock",
        "tag",
    )

    def __init__(
        self,
        seed: int,
        hot_sku: str,
        cold: int | tuple[str, ...],
        think_most_us: int = THINK_MOST_US,
        manners: Manners = Manners(),  # noqa: B008  # frozen
        *,
        limit: int = BUYER_LIMIT,
        stock: int = 0,
        tag: str = "",
    ) -> None:
        """Gather the crowd.

        Args:
            seed: the same seed gives the same crowd.
            hot_sku: what most want.
            cold: the other SKUs, or how many there are (``cold_skus`` names them).
            think_most_us: how long buyers take at most from ordering to paying (uniform from 0).
            manners: how they behave.
            limit: units one buyer may have of one SKU.
            stock: units of the hot SKU, for crowds that plan by it.
            tag: stands in the names of buyers and keys; so a second run on the same shop is no replay of the first.
        """
        self._think_most_us, self._manners, self._limit = think_most_us, manners, limit
        self.tag, self.hot_sku, self.stock = tag or str(seed), hot_sku, stock
        self._cold = cold_skus(cold) if isinstance(cold, int) else cold
        self._state = hashlib.blake2b(f"crowd {seed} ".encode(), digest_size=_DRAWS.size)
        shares = (
            manners.two_units,
            manners.too_many,
            manners.too_many + manners.greedy,
            manners.conflict,
            manners.hot,
        )
        self._edges = tuple(share * _WHOLE for share in shares)  # draws below mean yes
        self._again = _choice((manners.again / 2, "at_once"), (manners.again / 2, "after"), rest="")
        self._ending = _choice(
            (manners.never_pay, "never"), (manners.pay_late, "late"), (manners.cancel, "cancel"), rest="pay"
        )
        self._watch = _choice(
            (manners.watch_early, "early"), (manners.watch_after, "after"), (manners.poll, "poll"), rest="none"
        )
        self._callbacks = _choice(
            (manners.twice / 2, "twice"),
            (manners.twice / 2, "twice_later"),
            (manners.started_after, "started_after"),
            rest="once",
        )

    def plan(self, number: int) -> Plan:
        """Return what arrival ``number`` does. Some microseconds, no state."""
        draws, manners = self._draws(number), self._manners
        want, two, again, conflict, limit, ending, think, late, watch, calls, gap, jitter, other, looks, back, group = (
            draws
        )
        sku, buyer, why = self._sku(want), f"b{self.tag}-{number}", "first"
        quantity = 2 if two < self._edges[0] else 1
        if limit < self._edges[1]:
            why, quantity = "over_limit", self._limit + 1
        elif limit < self._edges[2] and number > 0:
            # The whole limit for someone who may hold something: refused if that earlier order stands.
            earlier = self.plan(number - 1 - other % min(number, GREEDY_REACH))
            why, quantity, buyer, sku = "over_limit", self._limit, earlier.buyer, earlier.sku
        other_order = None
        if conflict < self._edges[3]:
            swap = self._cold[other % len(self._cold)] if self._cold and other & 1 else sku
            other_order = (swap, quantity) if swap != sku else (sku, 3 - min(quantity, 2))
        return Plan(
            number=number,
            why=why,  # type: ignore[arg-type]  # one of the two words above
            buyer=buyer,
            sku=sku,
            quantity=quantity,
            idempotency_key=f"k{self.tag}-{number}",
            again=self._again(again),
            conflict=other_order,
            ending=self._ending(ending),
            think_us=think * self._think_most_us // _WHOLE,
            late_us=300_000 + late * 700_000 // _WHOLE,
            watch=self._watch(watch),
            callbacks=self._callbacks(calls),
            gap_us=1_000_000 + gap * 2_000_000 // _WHOLE,
            jitter=jitter / _WHOLE,
            looks=self._looks(looks, sku) if manners.looks_most else (),
            look_us=think * manners.look_us // _WHOLE,
            come_back_us=100_000 + jitter * manners.come_back_us // _WHOLE if back < manners.come_back * _WHOLE else 0,
            retries=self._retries(group),
        )

    def _sku(self, draw: int) -> str:
        if draw < self._edges[4] or not self._cold:
            return self.hot_sku
        if self._manners.skew == 1.0:
            return self._cold[draw % len(self._cold)]
        hot = self._manners.hot
        even = (draw / _WHOLE - hot) / (1.0 - hot)  # what is left of the draw, from 0 to 1
        return self._cold[int(len(self._cold) * even**self._manners.skew)]

    def _looks(self, draw: int, wanted: str) -> tuple[str, ...]:
        """Return the pages looked at; a quarter come by the list (""), the others by a link to a product."""
        by = () if draw & 3 else ("",)
        others = range(draw * self._manners.looks_most // _WHOLE if self._cold else 0)
        return (*by, *(self._cold[(draw >> 3 * (n + 1)) % len(self._cold)] for n in others), wanted)

    def _retries(self, draw: int) -> Retries:
        if self._manners.no_budget < 0:
            return "patient"
        return "no_budget" if draw < self._manners.no_budget * _WHOLE else "budget"

    def _draws(self, number: int) -> tuple[int, ...]:
        """Return 16 independent 32-bit numbers: one keyed hash is cheaper than seeding a generator."""
        state = self._state.copy()
        state.update(number.to_bytes(8, "little"))
        return _DRAWS.unpack(state.digest())


def without(plan: Plan, lacks: frozenset[str]) -> Plan:
    """Return the plan without what a shop lacks; see ``loadtests.targets.LACKS``."""
    changes: dict[str, Any] = {}
    if "replay" in lacks:
        changes |= {"again": "", "conflict": None}
    if "browse" in lacks:
        changes["looks"] = ()
    if plan.ending in lacks:  # late, cancel
        changes["ending"] = "pay"
    if "started" in lacks and plan.callbacks == "started_after":
        changes["callbacks"] = "once"
    if "limit" in lacks and plan.why == "over_limit":
        changes |= {"why": "first", "quantity": 1}
    return msgspec.structs.replace(plan, **changes) if changes else plan


def cold_skus(count: int) -> tuple[str, ...]:
    """Return the names of the cold SKUs: ``cold-000``, ``cold-001``, …"""
    return tuple(f"cold-{number:03d}" for number in range(count))


def backoff_us(tries: int, jitter: float, base_us: int = 100_000, most_us: int = 2_000_000) -> int:
    """Return the pause before retry ``tries`` (from 1): doubling, bounded, spread over 50..100 % of itself."""
    return int(min(most_us, base_us * 2 ** min(tries - 1, 20)) * (0.5 + jitter / 2))
