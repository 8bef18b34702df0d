"""Every budget of every scenario: kept by what it allows, missed by a little more, and named when it is missed."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import pytest
from rundir import recorded, run_files
from spoiled import spoil
from world import a_good_sale

from loadtests.generator.buyer import PLACE_TIMEOUT_S
from loadtests.judge import judge
from loadtests.record.groups import amplified
from loadtests.record.history import Attempt
from loadtests.record.memory import grown
from loadtests.record.summary import Budgets, Group, Summary
from loadtests.scenarios import NAMES, find

FIELDS = {
    "accepted_p99_us": "accepted",
    "accepted_after_retry_p99_us": "accepted_after_retry",
    "sold_out_p99_us": "sold_out",
    "paid_to_delivered_p99_us": "paid_to_delivered",
}
KNOWN = {*FIELDS, "p99_us", "unserved_share", "requests_per_arrival", "rss_growth_bytes"}


class Limit(NamedTuple):
    """One budget of latency: whose, of what, and how it stands in the file."""

    scenario: str
    name: str
    most_us: int
    budgets: Budgets


def limits() -> list[Limit]:
    found = []
    for scenario in NAMES:
        budgets = find(scenario).budgets
        for field, name in FIELDS.items():
            if (most_us := getattr(budgets, field)) is not None:
                found.append(Limit(scenario, name, most_us, Budgets(**{field: most_us})))
        found += [Limit(scenario, name, us, Budgets(p99_us={name: us})) for name, us in budgets.p99_us.items()]
    return found


def judged(budgets: Budgets, name: str = "", took_us: int = 0, count: int = 20_000) -> Summary:
    """Judge a good sale in which so many answers of a name took so long."""
    files = run_files(run={"budgets": budgets})
    if name:
        files = msgspec.structs.replace(files, histograms={**files.histograms, name: recorded(*[took_us] * count)})
    return judge(files)


@pytest.mark.parametrize("limit", limits(), ids=lambda limit: f"{limit.scenario}-{limit.name}")
def test_a_latency_budget_is_kept_just_below_and_missed_just_above(limit: Limit) -> None:
    """Stops: a budget on a name that nothing is recorded under, or so high that nothing can miss it."""
    assert judged(limit.budgets, limit.name, round(limit.most_us * 0.99)).verdict == "pass"
    summary = judged(limit.budgets, limit.name, round(limit.most_us * 1.01))
    assert summary.verdict == "slow"
    assert summary.reasons[0].startswith(f"slow: a latency budget is missed: {limit.name} took") or (
        summary.reasons[0].startswith("slow") and limit.name in summary.reasons[0]
    )
    assert limit.most_us < PLACE_TIMEOUT_S * 1e6 / 2  # a buyer who is answered at all can miss it


@pytest.mark.parametrize("limit", limits(), ids=lambda limit: f"{limit.scenario}-{limit.name}")
def test_few_slow_answers_are_enough(limit: Limit) -> None:
    """Stops: retries that are too few for a p99 to be printed, and so never miss their budget."""
    summary = judged(limit.budgets, limit.name, round(limit.most_us * 1.01), count=20)
    assert summary.verdict == "slow"
    assert limit.name in summary.reasons[0]


@pytest.mark.parametrize("scenario", NAMES)
def test_each_scenario_promises_orders_at_once_orders_after_a_retry_and_that_it_serves(scenario: str) -> None:
    """Stops: a shop that puts everybody off and answers the few it lets in quickly."""
    budgets = find(scenario).budgets
    assert {name for name, value in msgspec.structs.asdict(budgets).items() if value not in (None, {})} <= KNOWN
    assert budgets.accepted_p99_us is not None
    assert budgets.accepted_after_retry_p99_us is not None or "accepted_after_retry" in budgets.p99_us
    assert budgets.unserved_share is not None


@pytest.mark.parametrize("scenario", NAMES)
def test_more_put_off_than_the_budgets_share_is_slow(scenario: str) -> None:
    """Stops: a share of nearly everything, which no shop could miss."""
    share = find(scenario).budgets.unserved_share
    assert share is not None and share <= (0.2 if scenario == "retry_storm" else 0.01)

    def told(put_off: int, served: int) -> Summary:
        evidence = a_good_sale()
        one = next(a for a in evidence.attempts if a.op == "browse" or a.op == "track")
        looks: list[Attempt] = [
            msgspec.structs.replace(one, op="browse", why="list", keys=(), result="ok", status=200, outcome="in")
        ]
        looks.append(msgspec.structs.replace(looks[0], result="fail", status=503, outcome="overloaded"))
        lost = [a for a in evidence.attempts if a.result == "unknown" or a.status in (429, 503)]
        more = [looks[0]] * served + [looks[1]] * (put_off - len(lost))
        spoiled = spoil(evidence, attempts=[*evidence.attempts, *more])
        return judge(run_files(spoiled, run={"budgets": Budgets(unserved_share=share)}))

    count = 20_000
    assert told(round(count * share * 0.9), count).verdict == "pass"
    summary = told(round(count * share * 1.5), count)
    assert summary.verdict == "slow"
    assert "were not served" in summary.reasons[0]


def test_the_budgets_of_clients_and_of_memory_can_be_missed() -> None:
    for scenario in NAMES:
        budgets = find(scenario).budgets
        for name, most in budgets.requests_per_arrival.items():
            group = Group(arrivals=100, requests=0, requests_per_arrival=most, accepted=0, busiest_s=0)
            assert not list(amplified(budgets, {name: group}))
            assert list(amplified(budgets, {name: msgspec.structs.replace(group, requests_per_arrival=most * 1.01)}))
        for role, most_bytes in budgets.rss_growth_bytes.items():
            roles = dict.fromkeys(budgets.rss_growth_bytes, 0)
            assert not list(grown(budgets, roles | {role: most_bytes}))
            assert list(grown(budgets, roles | {role: most_bytes + 1}))
