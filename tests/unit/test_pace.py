"""The projector's pace: turns as far apart as the goal allows, and no farther."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.workers.pace import Pace

GOAL_S = 0.03
turns = st.lists(st.floats(0.0, 0.2), min_size=1, max_size=30)


def paced(took: list[float]) -> tuple[Pace, float]:
    """Return a pace after these turns, each begun when the one before said, and the instant at which the last ended."""
    pace, now = Pace(GOAL_S), 100.0
    for seconds in took:
        now += pace.rest_s(now)
        pace.begin(now)
        now += seconds
        pace.end(now)
    return pace, now


def test_what_arrives_just_after_a_read_is_committed_within_the_goal_when_turns_are_alike() -> None:
    """Stops: a turn that begins a whole goal after the last one, and ends after it."""
    pace, now = paced([0.006] * 5)
    read_at = now - 0.006
    next_ends = now + pace.rest_s(now) + 0.006
    assert next_ends - read_at == pytest.approx(GOAL_S)


@given(turns)
def test_turns_that_take_longer_than_the_goal_follow_each_other_without_rest(took: list[float]) -> None:
    """Stops: a rest while the journal grows; a rest below nothing, which would be an error of the loop."""
    pace, now = paced([*took, GOAL_S])
    assert pace.rest_s(now) == 0.0


@given(turns)
def test_a_rest_is_never_longer_than_the_goal(took: list[float]) -> None:
    """Stops: a clock that jumped, or a turn of no length, that keeps the projector asleep."""
    pace, now = paced(took)
    assert 0.0 <= pace.rest_s(now) <= GOAL_S + 1e-9


def test_one_long_turn_is_soon_forgotten() -> None:
    """Stops: a shop that was slow once and pays for short rests ever after."""
    pace, now = paced([0.1] + [0.002] * 60)
    assert pace.rest_s(now) == pytest.approx(GOAL_S - 0.002 - 0.002, abs=0.001)


def test_what_was_done_since_the_turn_counts_as_rest() -> None:
    """Stops: chores that push the next turn back."""
    pace, now = paced([0.005] * 3)
    assert pace.rest_s(now + 0.01) == pytest.approx(pace.rest_s(now) - 0.01)
