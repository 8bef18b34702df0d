"""An ordinary day in little: quiet nights, a busy evening, many products; people look around before they buy."""

from __future__ import annotations

from loadtests.generator.manners import Manners
from loadtests.generator.scenario import Scenario, Stage, visitors
from loadtests.record.summary import Budgets

SCENARIO = Scenario(
    name="ordinary_day",
    story="a day of 24 hours in little: many products, visitors who look around before they buy, an evening rush",
    wanted=("browse", "many_skus", "rush", "replay", "expiry", "cancel", "delivery"),
    manners=Manners(hot=0.05, skew=3.0, looks_most=2, look_us=300_000, greedy=0.005, too_many=0.005),
    arrivals="diurnal",
    rate=100.0,
    seconds=24.0,
    stage=Stage(cold=200, cold_stock=200),
    budgets=Budgets(
        accepted_p99_us=100_000,
        accepted_after_retry_p99_us=4_000_000,
        paid_to_delivered_p99_us=300_000,
        unserved_share=0.001,
        p99_us={"list_ok": 100_000, "product_in": 100_000},
    ),
)

OrdinaryDay = visitors(SCENARIO)
