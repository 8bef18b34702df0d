"""Late payers: half of the buyers pay after their reservation has ended, some for what is gone by then."""

from __future__ import annotations

from loadtests.generator.manners import Manners
from loadtests.generator.scenario import Scenario, Stage, visitors
from loadtests.record.summary import Budgets

SCENARIO = Scenario(
    name="late_payers",
    story="half of the buyers pay after their reservation has ended: a unit if one is free, else their money back",
    wanted=("late_payment", "late_sold", "late_refund", "expiry", "resale", "sold_out", "delivery"),
    manners=Manners(pay_late=0.5, never_pay=0.05, cancel=0.05),
    rate=500.0,
    stage=Stage(stock_share=0.45, cold=20, hold_share=0.15),
    budgets=Budgets(
        accepted_p99_us=75_000,
        accepted_after_retry_p99_us=4_000_000,
        sold_out_p99_us=50_000,
        paid_to_delivered_p99_us=250_000,
        unserved_share=0.001,
        p99_us={"pay_late": 75_000, "pay_refund_due": 75_000},
    ),
)

LatePayers = visitors(SCENARIO)
