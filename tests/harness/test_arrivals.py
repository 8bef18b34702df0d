"""The plan of arrivals is absolute: nothing that happens moves a later arrival."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.generator.arrivals import GRACE_US, Arrivals, Constant, Poisson, parse_arrivals

SHAPES = ("constant", "poisson", "poisson:9", "step", "step:0.05", "ramp", "spike", "diurnal")
rates, times = st.floats(1, 1_200), st.floats(0.1, 5)  # the steepest step stays below the greatest rate


def instants(plan: Arrivals) -> list[int]:
    return [plan.due_us(number) for number in range(plan.total)]


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


@given(st.sampled_from(SHAPES), rates, times, st.integers(0, 10**7), st.floats(0, 1))
def test_the_wait_always_leads_to_the_instant_of_the_plan(
    text: str, rate: float, seconds: float, elapsed_us: int, share: float
) -> None:
    plan = parse_arrivals(text, rate, seconds)
    sent = int(plan.total * share)
    wait_us, stop = plan.pace(elapsed_us, sent)
    assert stop == (sent == plan.total or elapsed_us > int(seconds * 1e6) + GRACE_US)
    assert stop or wait_us == max(0, plan.due_us(sent) - elapsed_us)


@given(st.sampled_from(SHAPES), rates, times)
def test_every_shape_brings_the_same_number_in_order_and_in_time(text: str, rate: float, seconds: float) -> None:
    plan = parse_arrivals(text, rate, seconds)
    found = instants(plan)
    assert plan.total == max(1, round(rate * seconds))
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] <= seconds * 1e6
    assert found == instants(parse_arrivals(text, rate, seconds))  # the same words, the same plan


@pytest.mark.parametrize("text", SHAPES)
def test_a_stalled_generator_sends_what_was_due_at_the_instants_it_was_due(text: str) -> None:
    """Stops: a plan that is anchored anew after a stall, and so asks less of a server that stalls."""
    plan = parse_arrivals(text, 1000, 2)
    elapsed_us = sent = 0
    due: list[int] = []
    while True:
        wait_us, stop = plan.pace(elapsed_us, sent)
        if stop:
            break
        elapsed_us += wait_us
        due.append(plan.due_us(sent))
        assert elapsed_us >= due[-1]
        if sent == plan.total // 3:
            elapsed_us += 700_000
        sent += 1
    assert due == instants(plan)


def test_other_seeds_give_other_plans() -> None:
    plans = [instants(parse_arrivals(text, 500, 2)) for text in ("poisson:1", "poisson:2", "constant")]
    assert plans[0] != plans[1] != plans[2]
    assert instants(parse_arrivals("poisson", 500, 2, seed=2)) == plans[1]


def test_poisson_gaps_are_exponential_with_the_rate_as_their_mean() -> None:
    """Stops: jitter sold as Poisson. Of an exponential the deviation is the mean, and 1/e exceed it."""
    found = instants(Poisson(1000, 100, seed=5))
    gaps = [after - before for before, after in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1000, rel=0.01)
    assert deviation == pytest.approx(mean, rel=0.02)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.3679, abs=0.005)


@pytest.mark.parametrize(
    ("text", "begin_s", "end_s", "share"),
    [
        ("step", 0, 1, 0.8),  # the door opens
        ("step:0.5", 0, 0.5, 0.8),
        ("step", 1, 10, 0.2),  # the tail
        ("spike", 4.5, 5.5, 0.55),
        ("spike", 0, 4.5, 0.225),
        ("ramp", 0, 5, 0.25),
        ("ramp", 9, 10, 0.19),
    ],
)
def test_each_shape_puts_its_arrivals_where_it_says(text: str, begin_s: float, end_s: float, share: float) -> None:
    found = instants(parse_arrivals(text, 1000, 10))
    within = sum(begin_s * 1e6 <= instant < end_s * 1e6 for instant in found)
    assert within / len(found) == pytest.approx(share, abs=0.001)


@pytest.mark.parametrize(
    ("rate", "seconds"), [(0, 1), (-1, 1), (1e9, 1), (1, 0), (float("nan"), 1), (1e5, 1e6), (1, float("nan"))]
)
@pytest.mark.parametrize("text", SHAPES)
def test_a_plan_that_cannot_be_run_is_refused(text: str, rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"rate|time|arrivals|opening"):
        parse_arrivals(text, rate, seconds)


@pytest.mark.parametrize(
    "text",
    ["", "bursty", "constant:5", "ramp:", "poisson:x", "step:x", "trace", "trace:", "CONSTANT", "poisson:1:2"],
)
def test_words_that_name_no_plan_are_answered_with_those_that_do(text: str) -> None:
    with pytest.raises(ValueError, match=r"write one of constant, poisson.*trace:FILE"):
        parse_arrivals(text, 10, 1)


@pytest.mark.parametrize("text", ["step:0", "step:-1", "step:10", "step:nan"])
def test_a_door_that_opens_longer_than_the_sale_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the opening must be above 0 and below 10 seconds"):
        parse_arrivals(text, 10, 10)


def test_a_peak_beyond_the_bound_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at the peak .* lower the rate"):
        parse_arrivals("step:0.1", 20_000, 10)


# --- traces -------------------------------------------------------------------------------------------------


@pytest.fixture
def trace(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        (tmp_path / "doors.trace").write_text(text)
        return f"trace:{tmp_path / 'doors.trace'}"

    return write


def test_a_trace_is_played_as_it_was_written(trace: Callable[[str], str]) -> None:
    plan = parse_arrivals(trace("# the door of last Friday\n0\n0.25 # two at once\n0.25\n\n1.000001\n"), 999, 2)
    assert instants(plan) == [0, 250_000, 250_000, 1_000_001]
    assert plan.pace(3_000_000, 1) == (0, False)
    assert plan.pace(3_000_001, 1) == (0, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0\n0.5\nsoon\n", r"doors.trace line 3: 'soon' is no instant: write seconds"),
        ("-1\n", r"line 1: '-1' is no instant"),
        ("inf\n", r"line 1: 'inf' is no instant"),
        ("0.5\n0.4\n", r"line 2: 0.4 is before the instant above it: sort the trace"),
        ("0\n7.2\n", r"line 2: 7.2 is after the end: ask for 8 seconds, or cut the trace"),
        ("# nobody\n", r"doors.trace has no instants: write one a line"),
        ("\n", r"has no instants"),
        ("0 0.1\n", r"line 1: '0 0.1' is no instant"),
    ],
)
def test_a_broken_trace_is_one_line_with_its_number_and_what_to_do(
    trace: Callable[[str], str], text: str, says: str
) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        parse_arrivals(trace(text), 10, 5)
    assert "\n" not in str(raised.value)


def test_a_trace_may_begin_with_the_mark_some_editors_write(trace: Callable[[str], str]) -> None:
    assert parse_arrivals(trace("\ufeff0.5\n"), 10, 5).due_us(0) == 500_000


def test_a_trace_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Stops: a command that says nothing and never ends."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"cannot be read \(it is no file\): name a file of instants"):
        parse_arrivals(f"trace:{tmp_path / 'pipe'}", 10, 5)


def test_a_trace_of_too_many_is_told_what_to_do(trace: Callable[[str], str]) -> None:
    """Stops: advice about a rate that a trace does not have."""
    with pytest.raises(ValueError, match=r"has 25001 instants; .* are the most: ask for more seconds, or cut"):
        parse_arrivals(trace("0.1\n" * 25_001), 10, 0.25)


def test_a_trace_that_is_missing_or_no_text_says_so(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff\xfe")
    for name in ("nowhere", "picture", "."):
        with pytest.raises(ValueError, match=r"cannot be read .*: name a file of instants"):
            parse_arrivals(f"trace:{tmp_path / name}", 10, 5)
