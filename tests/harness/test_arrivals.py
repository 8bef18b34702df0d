"""The plan of arrivals is absolute: nothing that happens moves a later arrival."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.generator.arrivals import GRACE_US, Constant


def test_arrivals_are_evenly_spaced_from_the_start() -> None:
    plan = Constant(2000, 20)
    assert plan.total == 40_000
    assert [plan.due_us(n) for n in (0, 1, 2, 39_999)] == [0, 500, 1000, 19_999_500]


def test_a_late_generator_does_not_move_later_arrivals() -> None:
    plan = Constant(1000, 10)
    assert plan.pace(0, 0) == (0, False)
    assert plan.pace(250, 1) == (750, False)
    assert plan.pace(5_000_000, 1) == (0, False)  # a stall: the overdue ones go out at once …
    assert plan.pace(5_000_000, 5_001) == (1000, False)  # … and the next is due when it always was


def test_it_stops_after_the_last_arrival_or_when_the_run_is_over() -> None:
    plan = Constant(100, 1)
    assert plan.pace(990_001, 100) == (0, True)
    assert plan.pace(1_000_000 + GRACE_US, 50) == (0, False)
    assert plan.pace(1_000_001 + GRACE_US, 50) == (0, True)


@given(st.floats(0.5, 50_000), st.floats(0.1, 100), st.integers(0, 10**8))
def test_the_wait_always_leads_to_the_instant_of_the_plan(rate: float, seconds: float, elapsed_us: int) -> None:
    plan = Constant(rate, seconds)
    sent = plan.total // 2
    wait_us, stop = plan.pace(elapsed_us, sent)
    assert stop or elapsed_us + wait_us >= plan.due_us(sent)
    assert wait_us == 0 or elapsed_us + wait_us == plan.due_us(sent)


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1e9, 1), (1, 0), (float("nan"), 1), (1e5, 1e6)])
def test_a_plan_that_cannot_be_run_is_refused(rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"rate|time|arrivals"):
        Constant(rate, seconds)
