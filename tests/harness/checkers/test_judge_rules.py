"""Two small rules of the verdict: an answer 500 is wrong; unpaid units that come back late are slow."""

from __future__ import annotations

import msgspec
import pytest
from rundir import run_files
from spoiled import spoil
from world import World, a_good_sale, a_good_world

from loadtests.judge import EXPIRY_LATE_MOST_MS, judge
from loadtests.record.evidence import Evidence
from loadtests.record.history import Attempt
from loadtests.record.summary import Budgets, Incident, Summary

KILLED = Incident(at_us=1, what="kill -9 of work")
DIED = Incident(at_us=1, what="work died", planned=False)


# --- a request was answered 500 -----------------------------------------------------------------------------


def _lost(evidence: Evidence) -> list[Attempt]:
    return [attempt for attempt in evidence.attempts if attempt.result == "unknown"]


def _answered(status: int, outcome: str, lost: int = 1) -> Summary:
    """Judge a good sale where so many of the lost answers were a server's error instead."""
    evidence = a_good_sale()
    changed = {
        id(attempt): msgspec.structs.replace(attempt, status=status, outcome=outcome)
        for attempt in _lost(evidence)[:lost]
    }
    assert len(changed) == lost
    return judge(run_files(spoil(evidence, attempts=[changed.get(id(a), a) for a in evidence.attempts])))


@pytest.mark.parametrize("many", [1, 2])
def test_a_single_answer_500_is_wrong_and_they_are_counted(many: int) -> None:
    """Stops: a handler that crashes now and then in a run that passes, because the retry went well."""
    summary = _answered(500, "internal_error", many)
    assert summary.verdict == "wrong"
    (reason,) = summary.reasons
    assert reason.startswith(f"wrong: {many} ")
    assert "500" in reason


def test_an_answer_500_is_wrong_whatever_was_asked() -> None:
    """Stops: a rule that looks at orders placed and passes over crashes in paying, tracking and cancelling."""
    for op in ("place", "pay", "track", "cancel"):
        evidence = a_good_sale()
        one = next(a for a in evidence.attempts if a.op == op)
        failed = msgspec.structs.replace(one, why="again", result="unknown", status=500, outcome="internal_error")
        summary = judge(run_files(spoil(evidence, attempts=[*evidence.attempts, failed])))
        assert any("500" in reason for reason in summary.reasons if reason.startswith("wrong")), op
        assert summary.verdict == "wrong", op


@pytest.mark.parametrize(("status", "outcome"), [(503, "outcome_unknown"), (503, "overloaded"), (0, "timeout")])
def test_a_server_that_says_it_cannot_is_not_a_server_that_failed(status: int, outcome: str) -> None:
    """Stops: a shop called wrong for turning buyers away by name while a store is down."""
    summary = _answered(status, outcome)
    assert (summary.verdict, summary.reasons) == ("pass", [])


# --- unpaid units came back late ----------------------------------------------------------------------------


def _expire_late(world: World, late_ms: int) -> None:
    """Let the one order that is still reserved expire so long after its time."""
    (order,) = [order for order in world.orders.values() if order.state == "reserved"]
    world.now_ms = order.pay_by_ms + late_ms - 1
    world.expire(order)
    assert world.now_ms == order.pay_by_ms + late_ms


def _expired_late(late_ms: int, *incidents: Incident) -> Summary:
    world = a_good_world()
    _expire_late(world, late_ms)
    return judge(run_files(world.evidence(), run={"incidents": list(incidents)}))


def test_units_that_came_back_too_late_are_slow_and_it_says_how_late() -> None:
    """Stops: an expirer that lags by minutes while every request is fast; stock nobody can buy."""
    summary = _expired_late(4_200)
    assert summary.verdict == "slow"
    (reason,) = summary.reasons
    assert reason.startswith("slow: ")
    assert "4.2 s" in reason
    assert str(EXPIRY_LATE_MOST_MS) in reason


def test_the_promise_is_kept_up_to_its_last_millisecond_and_not_one_more() -> None:
    """Stops: a limit that is off by one, or taken for seconds."""
    assert _expired_late(EXPIRY_LATE_MOST_MS).verdict == "pass"
    assert _expired_late(EXPIRY_LATE_MOST_MS + 1).verdict == "slow"


def test_the_latest_one_counts_not_the_last_nor_the_mean() -> None:
    """Stops: one forgotten order hidden behind many that expired in time."""
    world = a_good_world()
    _expire_late(world, 2_500)
    world.expire(world.place("oda", "cold"))
    expired = [event for event in world.events if event.after == "expired"]
    assert len(expired) >= 3
    summary = judge(run_files(world.evidence()))
    assert summary.verdict == "slow"
    assert "2.5 s" in summary.reasons[0]


def test_while_a_part_was_killed_on_purpose_late_is_forgiven() -> None:
    """Stops: every run with a kill called slow, though nothing can expire while Valkey is down."""
    summary = _expired_late(9_000, KILLED)
    assert (summary.verdict, summary.reasons) == ("pass", [])


def test_after_an_accident_a_run_is_void_and_lateness_is_no_second_reason() -> None:
    """Stops: the consequence of an accident listed as a fault of the shop."""
    summary = _expired_late(9_000, DIED)
    assert summary.verdict == "void"
    assert not [reason for reason in summary.reasons if reason.startswith("slow")]


def test_what_ends_late_without_expiring_is_not_late() -> None:
    """Stops: a buyer who cancels or pays after the time counted as an expiry that lags."""
    world = a_good_world()
    (order,) = [order for order in world.orders.values() if order.state == "reserved"]
    world.now_ms = order.pay_by_ms + 5_000
    world.cancel(order)
    assert judge(run_files(world.evidence())).verdict == "pass"


def test_a_late_expiry_stands_beside_a_missed_budget_and_both_yield_to_wrong() -> None:
    """Stops: one reason that hides another, or slowness that hides a broken invariant."""
    world = a_good_world()
    _expire_late(world, 3_000)
    slow = judge(run_files(world.evidence(), run={"budgets": Budgets(accepted_p99_us=1_000)}))
    assert slow.verdict == "slow"
    assert len(slow.reasons) == 2
    broken = spoil(world.evidence(), facts_left=3)
    assert judge(run_files(broken)).verdict == "wrong"
