"""A race for new stock: keys come in three times while the flood runs, each time into a sold-out shop."""

from __future__ import annotations

from loadtests.generator.manners import Manners
from loadtests.generator.scenario import Restock, Scenario, Stage, visitors
from loadtests.record.summary import Budgets

SCENARIO = Scenario(
    name="restock_race",
    story="keys are imported three times while a flood asks for the sold-out product",
    wanted=("sold_out", "restock", "resale", "delivery"),
    manners=Manners(hot=0.95, come_back=0.3, come_back_us=2_000_000),
    rate=1000.0,
    stage=Stage(stock_share=0.1, cold=20, hold_share=0.2),
    budgets=Budgets(
        accepted_p99_us=100_000,
        accepted_after_retry_p99_us=4_000_000,
        sold_out_p99_us=75_000,
        paid_to_delivered_p99_us=500_000,
        unserved_share=0.001,
    ),
    restocks=(Restock(at=0.35, units=1.0), Restock(at=0.55, units=0.5), Restock(at=0.75, units=1.0)),
)

RestockRace = visitors(SCENARIO)
