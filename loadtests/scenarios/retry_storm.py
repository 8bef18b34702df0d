"""A storm of retries: Valkey is killed in the middle; half of the clients have a budget for retries."""

from __future__ import annotations

from loadtests.generator.manners import Manners
from loadtests.generator.scenario import Scenario, Stage, visitors
from loadtests.record.summary import Budgets

SCENARIO = Scenario(
    name="retry_storm",
    story="Valkey dies for a moment; half of the clients keep a retry budget, the others ask at once and without end",
    wanted=("retry_with_budget", "retry_without_budget", "delivery"),
    manners=Manners(no_budget=0.5, greedy=0.0, too_many=0.0),
    rate=500.0,
    stage=Stage(stock_share=0.9, cold=20),
    budgets=Budgets(
        accepted_p99_us=150_000,
        unserved_share=0.2,
        p99_us={"accepted_after_retry": 4_000_000},
        requests_per_arrival={"budget": 1.25},
    ),
    kills=(("valkey", 0.4),),
)

RetryStorm = visitors(SCENARIO)
