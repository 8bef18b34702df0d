"""One trial: pass, fail and void by its raw files, and whose fault a slow order was."""

from __future__ import annotations

import msgspec
import pytest

from loadtests.record.history import Attempt
from loadtests.record.summary import Generator, WakeLag
from loadtests.search import result
from loadtests.search.stand import Trial
from loadtests.search.trial import Budget, Figures, accepted_us, figures_of, judge_trial

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


@pytest.mark.parametrize(
    ("generator", "why"),
    [
        ({"shed": 1, "sent": 999}, "never sent"),
        ({"unsent": 1, "sent": 999}, "never sent"),
        ({"sent": 999}, "999 sent"),
        ({"scheduled": 1_001, "sent": 1_001}, "1001 arrivals were sent; the history has 1000"),
    ],
)
def test_a_load_that_was_not_put_on_was_not_borne(generator: dict[str, object], why: str) -> None:
    """Stops: a rate believed because the arrivals that would have broken it never came."""
    said = judge_trial(figures(crowd(0), **generator), BUDGET)
    assert said.judgement == "void"
    assert why in said.why


def test_a_rate_that_was_not_made_was_not_kept() -> None:
    """Stops: a generator that stretches its plan, so that the shop never sees the rate; refusals have no budget."""

    def stretched(by: float) -> list[Attempt]:
        orders = [order(n, 5_000, "accepted" if n < 200 else "sold_out") for n in range(1_000)]
        return [
            one
            if one.outcome == "accepted"
            else msgspec.structs.replace(one, sent_us=round(one.sent_us * by), done_us=round(one.done_us * by))
            for one in orders
        ]

    assert judge_trial(figures(stretched(1.01)), BUDGET).judgement == "pass"
    said = judge_trial(figures(stretched(1.25)), BUDGET)
    assert said.judgement == "void"
    assert "80.1% of the rate" in said.why


def test_what_the_shop_kept_waiting_is_no_fault_of_the_generators() -> None:
    """Stops: a shop that shows its pages so slowly that orders come late, and is let off for it."""
    late = [
        msgspec.structs.replace(one, sent_us=one.sent_us + 400_000, done_us=one.done_us + 400_000, waited_us=400_000)
        for one in crowd(0)
    ]
    assert judge_trial(figures(late), BUDGET).judgement == "fail"


def test_a_budget_kept_by_a_late_generator_is_believed_and_its_figures_are_not() -> None:
    """Conservative for the rate; but a knee or a law through the generator's own lateness would be about nothing."""

    def made(number: int, rate: float, **generator: object) -> Trial:
        found = msgspec.structs.replace(figures(crowd(0), **generator), rate=rate)
        said = judge_trial(found, BUDGET)
        took = accepted_us(crowd(0))
        return Trial(number=number, rate=rate, judgement=said.judgement, why="", figures=found, latencies_us=took)

    late = made(1, 1_000, wake_lag_us=WakeLag(p99=40_000))
    fit = made(2, 2_000)
    assert (late.judgement, fit.judgement) == ("pass", "pass")
    assert (result.is_clean(late), result.is_clean(fit)) == (False, True)
    found = result.levels([late, fit])
    assert [level.standing for level in found] == ["open", "open"]  # one pass each: both count for the rate
    assert [level.passes for level in found] == [1, 1]
    assert [level.inflated for level in found] == [True, False]
    assert result.find_law([late] * 20) == result.find_law([])


def test_concurrency_is_by_littles_law() -> None:
    """One order a millisecond, each 5 ms long: five at once, a thousand a second."""
    point = figures(crowd(0)).point
    assert point.concurrency == pytest.approx(5, rel=0.01)
    assert point.throughput == pytest.approx(1_000, rel=0.01)
