"""One trial: pass, fail and void by its raw files, and whose fault a slow order was."""

from __future__ import annotations

import pytest

from loadtests.record.history import Attempt
from loadtests.record.summary import Generator, WakeLag
from loadtests.search.trial import Budget, Figures, figures_of, judge_trial

BUDGET = Budget(p99_us=100_000, errors=0.01)


def order(number: int, took_us: int, outcome: str = "accepted") -> Attempt:
    result = "ok" if outcome == "accepted" else "unknown" if outcome == "timeout" else "fail"
    return Attempt(
        arrival=number,
        op="place",
        why="first",
        buyer=f"b{number}",
        intended_us=number * 1_000,
        sent_us=number * 1_000 + 10,
        done_us=number * 1_000 + took_us,
        result=result,  # type: ignore[arg-type]
        status=201 if outcome == "accepted" else 0 if outcome == "timeout" else 503 if outcome == "overloaded" else 409,
        outcome=outcome,
    )


def figures(attempts: list[Attempt], **generator: object) -> Figures:
    fields: dict[str, object] = {
        "scheduled": len(attempts),
        "sent": len(attempts),
        "unsent": 0,
        "shed": 0,
        "cpu_max": 0.3,
        "wake_lag_us": WakeLag(p99=200),
    }
    told = Generator(**(fields | generator))  # type: ignore[arg-type]
    return figures_of(attempts, told, BUDGET, rate=1_000, seconds=1, seed=1, cpu={}, gauges={})


def crowd(slow: int, took_us: int = 150_000, outcome: str = "accepted") -> list[Attempt]:
    """A thousand orders of 5 ms, some of them slow or ended otherwise."""
    return [order(n, took_us if n < slow else 5_000, outcome if n < slow else "accepted") for n in range(1_000)]


def test_a_trial_passes_with_one_slow_order_in_a_hundred_and_fails_with_one_more() -> None:
    """That is what a p99 says."""
    assert judge_trial(figures(crowd(10)), BUDGET).judgement == "pass"
    assert judge_trial(figures(crowd(11)), BUDGET).judgement == "fail"


@pytest.mark.parametrize(
    ("outcome", "judgement"),
    [("overloaded", "fail"), ("timeout", "fail"), ("sold_out", "pass"), ("limit_reached", "pass")],
)
def test_no_decision_is_an_error_and_a_right_refusal_is_none(outcome: str, judgement: str) -> None:
    """A shop that has sold out did its work; one that has no room did not."""
    assert judge_trial(figures(crowd(11, 5_000, outcome)), BUDGET).judgement == judgement


@pytest.mark.parametrize(
    "generator",
    [
        {"cpu_max": 0.9},
        {"wake_lag_us": WakeLag(p99=40_000)},
        {"stalls": [(0, 60_000)]},
    ],
)
def test_an_unfit_generator_makes_a_fail_void_and_leaves_a_pass(generator: dict[str, object]) -> None:
    """It can only have made latency longer: a budget that was kept all the same was kept."""
    assert judge_trial(figures(crowd(40, 105_000), **generator), BUDGET).judgement == "void"
    assert judge_trial(figures(crowd(5), **generator), BUDGET).judgement == "pass"


def test_a_fail_that_no_lateness_explains_stands() -> None:
    """40 ms of lateness, twice, is not 300 ms."""
    said = judge_trial(figures(crowd(40, 300_000), wake_lag_us=WakeLag(p99=40_000)), BUDGET)
    assert said.judgement == "fail"


def test_arrivals_that_were_never_sent_make_any_trial_void() -> None:
    """A load that was not put on was not borne."""
    said = judge_trial(figures(crowd(0), shed=1), BUDGET)
    assert said.judgement == "void"
    assert "never sent" in said.why


def test_concurrency_is_by_littles_law() -> None:
    """One order a millisecond, each 5 ms long: five at once, a thousand a second."""
    point = figures(crowd(0)).point
    assert point.concurrency == pytest.approx(5, rel=0.01)
    assert point.throughput == pytest.approx(1_000, rel=0.01)
