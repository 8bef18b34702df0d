"""A storm of polls: nearly every page asks for its order's state on a timer instead of waiting for the answer."""

from __future__ import annotations

from loadtests.generator.manners import Manners
from loadtests.generator.scenario import Scenario, Stage, visitors
from loadtests.record.summary import Budgets

SCENARIO = Scenario(
    name="poll_storm",
    story="nearly every buyer's page asks for the order's state several times a second instead of waiting",
    wanted=("polled", "delivery", "expiry"),
    manners=Manners(poll=0.9, watch_early=0.05, watch_after=0.05, polls_most=40, poll_every_us=150_000),
    rate=300.0,
    stage=Stage(stock_share=0.9, cold=20, hold_share=0.2),
    budgets=Budgets(
        accepted_p99_us=100_000,
        accepted_after_retry_p99_us=4_000_000,
        unserved_share=0.001,
        p99_us={"poll_reserved": 100_000, "poll_delivered": 100_000},
    ),
)

PollStorm = visitors(SCENARIO)
