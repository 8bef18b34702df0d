"""A storm of refusals: nineteen of twenty come for what is gone, and must be told so cheaply and truly."""

from __future__ import annotations

from loadtests.generator.manners import Manners
from loadtests.generator.scenario import Scenario, Stage, visitors
from loadtests.record.summary import Budgets

SCENARIO = Scenario(
    name="sold_out_storm",
    story="nineteen of twenty buyers come for what is gone",
    wanted=("sold_out", "mostly_refused", "replay", "delivery"),
    manners=Manners(hot=1.0, conflict=0.005, greedy=0.005, too_many=0.005, never_pay=0.05),
    stage=Stage(stock_share=0.04, cold=0),
    budgets=Budgets(
        accepted_p99_us=100_000,
        accepted_after_retry_p99_us=4_000_000,
        sold_out_p99_us=30_000,
        paid_to_delivered_p99_us=300_000,
        unserved_share=0.001,
    ),
)

SoldOutStorm = visitors(SCENARIO)
