"""What a scenario is: one story in one file, told as data, and playable by stock Locust.

A scenario's file says who comes (``manners``), when (``arrivals``), what stands ready (``stage``), what must be kept
(``budgets``) and what must have been seen (``wanted``), and ends with the Locust user that plays it. Reading the file
outside of Locust loads nothing of Locust, and so patches nothing.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec

from loadtests.generator.manners import Manners
from loadtests.generator.plan import BUYER_LIMIT, Crowd
from loadtests.record.summary import Budgets

HOT_SKU: Final = "hot"


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What stands ready before the first buyer comes."""

    stock_share: float = 0.25  # units of the hot SKU for each arrival
    cold: int = 200  # other SKUs on sale
    cold_stock: int = 100  # units of each
    buyer_limit: int = BUYER_LIMIT  # units one buyer may have of one SKU
    hold_share: float = 0.4  # of the sale a reservation holds: what is not paid comes back in time to be sold again
    hold_least_ms: int = 1_500
    hold_most_ms: int = 8_000
    think_share: float = 0.8  # buyers take up to this share of their hold to pay

    def stock(self, attempts: float) -> int:
        """Return the units of the hot SKU for so many arrivals, at least one."""
        return max(1, round(attempts * self.stock_share))

    def hold_ms(self, seconds: float) -> int:
        """Return how long reservations hold in a sale of so many seconds."""
        return round(max(self.hold_least_ms, min(self.hold_most_ms, seconds * 1000 * self.hold_share)))


class Restock(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of the hot SKU that are imported while the sale runs."""

    at: float  # part of the time
    units: float  # as a share of what stood ready


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One story."""

    name: str  # of its file
    story: str  # in one sentence
    wanted: tuple[str, ...]  # names of loadtests.checkers.non_vacuity: what must have been seen
    manners: Manners = Manners()
    crowd: type[Crowd] = Crowd
    arrivals: str = "constant"  # as `parse_arrivals` reads them
    rate: float = 2000.0  # a second, unless the run says otherwise
    seconds: float = 20.0
    stage: Stage = Stage()
    budgets: Budgets = Budgets()
    restocks: tuple[Restock, ...] = ()
    kills: tuple[tuple[str, float], ...] = ()  # part, and at which part of the time it is killed, unless --kill says


def visitors(scenario: Scenario) -> Any:
    """Return the Locust user that plays a scenario, or None where nobody has loaded Locust."""
    if "locust" not in sys.modules:
        return None
    from loadtests.generator.run import user_of

    return user_of(scenario)
