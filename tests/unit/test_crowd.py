"""Whether others want this thread's core: in made-up time, and on a real core with a real neighbour."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from core.web.crowd import Crowd, run_delay_ns


def test_waiting_is_told_as_a_share_of_the_time_and_forgotten_soon() -> None:
    """Stops: a neighbour that is overlooked, or one that is remembered for the whole of a sale."""
    now, waited = [0.0], [0]
    crowd = Crowd(lambda: waited[0], lambda: now[0])
    assert crowd.share() == 1.0, "nothing is known yet: be careful"

    def pass_time(share: float) -> float:
        for _ in range(500):
            now[0] += 0.002
            waited[0] += int(2e6 * share)
            told = crowd.share()
        return told

    assert pass_time(0.0) < 0.02
    assert pass_time(0.5) == pytest.approx(0.5, abs=0.02)
    assert pass_time(0.0) < 0.02


def test_after_a_pause_it_begins_anew_and_is_careful() -> None:
    """Stops: ten quiet minutes taken for *lately* in the first moment of a flood."""
    now, waited = [0.0], [0]
    crowd = Crowd(lambda: waited[0], lambda: now[0])
    for _ in range(500):
        now[0] += 0.002
        crowd.share()
    now[0] += 600.0
    assert crowd.share() == 1.0


def test_asked_twice_at_one_instant_it_says_the_same() -> None:
    """Stops: a division by the time that has not passed."""
    crowd = Crowd(lambda: 5, lambda: 1.0)
    assert crowd.share() == crowd.share() == 1.0


def _waited_beside(neighbours: int) -> float:
    """Return the share of 0.2 s that a thread on a core waited for it, with others beside it."""
    core, shares = min(os.sched_getaffinity(0)), []

    def work() -> None:
        os.sched_setaffinity(0, {core})
        delay_ns = run_delay_ns()
        assert delay_ns is not None
        before_ns, began = delay_ns(), time.monotonic()
        while time.monotonic() - began < 0.2:
            pass
        shares.append((delay_ns() - before_ns) / 1e9 / 0.2)

    busy = f"import os\nos.sched_setaffinity(0, [{core}])\nprint(flush=True)\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) for _ in range(neighbours)]
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        for other in others:
            other.kill()
            other.communicate()
    return shares[0]


@pytest.mark.skipif(run_delay_ns() is None, reason="this kernel does not count the waiting of threads")
def test_a_neighbour_on_the_core_is_seen() -> None:
    """Stops: a figure that is read from the wrong place and is always nothing."""
    assert _waited_beside(2) > 0.25
