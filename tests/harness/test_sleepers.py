"""Who sleeps until an instant of the plan wakes then, in order, not earlier, and from that sleep only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from loadtests.generator.arrivals import Constant
from loadtests.generator.clock import Clock
from loadtests.generator.crew import Crew
from loadtests.generator.dispatcher import Dispatcher
from loadtests.generator.sleepers import NEVER_US, WAKE_MOST, Sleepers


class Hand:
    """A clock moved by hand, and sleepers on it."""

    def __init__(self) -> None:
        self.now_us = 0
        self.sleepers, self.crew = Sleepers(lambda: self.now_us), Crew()
        self.woken: list[tuple[int, Any]] = []

    def sleep(self, who: Any, *pauses_us: int) -> None:
        for pause_us in pauses_us:
            self.sleepers.sleep_us(pause_us)
            self.woken.append((self.now_us, who))

    def wake(self, now_us: int) -> int:
        self.now_us = now_us
        return in_hub(lambda: self.sleepers.wake(now_us))


def in_hub(job: Callable[[], Any]) -> Any:
    """Run a job where the alarm rings."""
    done, result = Event(), []

    def run() -> None:
        result.append(job())
        done.set()

    gevent.get_hub().loop.run_callback(run)
    done.wait()
    return result[0]


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=4), max_size=20))
def test_everyone_wakes_at_the_first_look_that_is_not_too_early_the_earliest_first(naps: list[list[int]]) -> None:
    """Stops: a buyer woken before its time, after its time, twice, or never."""
    hand, due = Hand(), []
    for who, pauses_us in enumerate(naps):
        hand.crew.start(hand.sleep, who, *pauses_us)
        due += [(sum(pauses_us[: nth + 1]), who) for nth in range(len(pauses_us))]
    gevent.sleep(0)
    for now_us in range(201):
        following = hand.wake(now_us)
        assert following > now_us
    assert sorted(hand.woken) == sorted(due) and following == NEVER_US and not hand.crew.busy


def test_a_crowd_that_is_due_together_wakes_in_parts() -> None:
    """Stops: a storm of payments during which no reply is read and no arrival sent."""
    hand = Hand()
    for who in range(3 * WAKE_MOST):
        hand.crew.start(hand.sleep, who, 10)
    gevent.sleep(0)
    assert [hand.wake(10), len(hand.woken)] == [10, WAKE_MOST]
    assert [hand.wake(11), len(hand.woken)] == [10, 2 * WAKE_MOST]
    assert [hand.wake(12), len(hand.woken)] == [NEVER_US, 3 * WAKE_MOST]


def test_who_was_cut_off_is_not_woken_from_what_it_waits_for_next() -> None:
    """Stops: a greenlet that is switched to while it writes down how its request ended."""
    hand, written, later = Hand(), [], Event()

    def buyer() -> None:
        try:
            hand.sleepers.sleep_us(10)
        finally:
            written.append(later.wait())

    hand.crew.start(buyer)
    gevent.sleep(0)
    gevent.killall(list(hand.crew.busy), block=False)
    gevent.sleep(0)
    hand.wake(10)
    assert not written
    later.set()
    gevent.sleep(0)
    assert written == [True] and not hand.crew.busy


def test_nobody_sleeps_when_the_run_is_over() -> None:
    """Stops: a greenlet that sleeps where nobody will wake it."""
    hand = Hand()
    hand.sleepers.close()
    with pytest.raises(gevent.GreenletExit):
        hand.sleepers.sleep_us(1)


# Who is woken by the next arrival only is 200 ms late and more at 2 a second; a busy machine may be late itself.
@pytest.mark.parametrize(("rate", "seconds", "late_most_us"), [(2, 1.0, 100_000), (5_000, 0.3, 1_000_000)])
def test_sleepers_wake_between_arrivals_and_after_the_last(rate: int, seconds: float, late_most_us: int) -> None:
    """Stops: an alarm that knows the arrivals only: buyers who pay when the next one comes, or never."""
    clock, crew = Clock(), Crew()
    sleepers = Sleepers(clock.now_us)
    late_us: list[int] = []

    def play(_: Any, due_us: int) -> None:
        gevent.sleep(0.001)  # a reply is waited for; so who sleeps first is not begun by the alarm itself
        for nth in range(1, 4):
            pay_us = due_us + nth * 100_000
            sleepers.sleep_us(pay_us - clock.now_us())
            late_us.append(clock.now_us() - pay_us)

    class Quiet:
        firsts: dict[str, int] = {}  # noqa: RUF012

        def note(self, *_: Any) -> None:
            raise AssertionError("nothing is left unsent")

    dispatcher = Dispatcher(
        Constant(rate, seconds), crew, lambda number: number, play, Quiet(), clock, sleepers=sleepers, drain_most_s=2.0
    )
    clock.restart()
    assert dispatcher._dispatch()
    dispatcher._drain()
    assert not crew.busy and not crew.faults
    assert len(late_us) == 3 * round(rate * seconds)
    assert min(late_us) >= 0 and sorted(late_us)[len(late_us) // 2] < late_most_us
