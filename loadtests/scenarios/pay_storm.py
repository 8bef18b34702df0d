"""A storm of payments: the gateway was away, comes back, and tells everything at once, twice and out of order."""

from __future__ import annotations

from loadtests.generator.manners import Manners
from loadtests.generator.scenario import Scenario, Stage, visitors
from loadtests.record.summary import Budgets

SCENARIO = Scenario(
    name="pay_storm",
    story="payments pile up and come in one blow of 0.3 s every two seconds, many twice, many out of order",
    wanted=("pay_storm", "repeated_callback", "out_of_order", "delivery"),
    manners=Manners(
        pay_together_us=2_000_000, twice=0.4, started_after=0.2, never_pay=0.04, pay_late=0.0, greedy=0.0, too_many=0.0
    ),
    rate=500.0,
    stage=Stage(stock_share=1.2, hold_share=0.6, hold_least_ms=5_000, think_share=0.3),
    budgets=Budgets(
        accepted_p99_us=250_000,
        accepted_after_retry_p99_us=4_000_000,
        paid_to_delivered_p99_us=800_000,
        unserved_share=0.001,
        p99_us={"pay_paid": 400_000},
    ),
)

PayStorm = visitors(SCENARIO)
