"""A hostage: one buyer reserves the whole stock and never pays; honest buyers get it when the hold is over."""

from __future__ import annotations

import msgspec

from core.settings import QUANTITY_MOST
from loadtests.generator.manners import Manners
from loadtests.generator.plan import Crowd, Plan
from loadtests.generator.scenario import Scenario, Stage, visitors
from loadtests.record.summary import Budgets


class Robbed(Crowd):
    """The first arrivals are one buyer's, as many as it takes to reserve everything; the others are honest."""

    __slots__ = ()

    def plan(self, number: int) -> Plan:
        """Return what arrival ``number`` does."""
        honest = super().plan(number)
        left = self.stock - number * QUANTITY_MOST
        if left <= 0:
            return honest
        return msgspec.structs.replace(
            honest,
            why="first",
            buyer=f"thief-{self.tag}",
            sku=self.hot_sku,
            quantity=min(left, QUANTITY_MOST),
            again="",
            conflict=None,
            ending="never",
            watch="none",
            come_back_us=0,
        )


SCENARIO = Scenario(
    name="hostage",
    story="one buyer reserves the whole stock and never pays; honest buyers get it when the hold is over",
    wanted=("hostage", "sold_out", "expiry", "resale", "delivery"),
    manners=Manners(greedy=0.0, too_many=0.0, never_pay=0.03, come_back=0.7, come_back_us=1_500_000),
    crowd=Robbed,
    rate=300.0,
    stage=Stage(stock_share=0.3, cold=20, buyer_limit=1_000_000, hold_share=0.25),
    budgets=Budgets(
        accepted_p99_us=75_000,
        accepted_after_retry_p99_us=4_000_000,
        sold_out_p99_us=30_000,
        paid_to_delivered_p99_us=250_000,
        unserved_share=0.001,
    ),
)

Hostage = visitors(SCENARIO)
