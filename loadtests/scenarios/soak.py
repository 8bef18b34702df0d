"""A soak: the same load for long, and nothing may grow that should not. Short by default; give it hours."""

from __future__ import annotations

from loadtests.generator.scenario import Scenario, Stage, visitors
from loadtests.record.summary import Budgets

SCENARIO = Scenario(
    name="soak",
    story="the same load for long: latency stays, memory stays",
    wanted=("steady", "expiry", "cancel", "delivery"),
    arrivals="poisson",
    rate=300.0,
    seconds=60.0,
    stage=Stage(stock_share=1.2, cold=50, cold_stock=200),
    budgets=Budgets(
        accepted_p99_us=100_000,
        accepted_after_retry_p99_us=4_000_000,
        paid_to_delivered_p99_us=500_000,
        unserved_share=0.001,
        rss_growth_bytes={"server": 24 * 2**20, "worker": 24 * 2**20},
    ),
)

Soak = visitors(SCENARIO)
