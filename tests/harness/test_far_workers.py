"""The clocks of many workers far away: a real master before simulated ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadtests.generator import load
from loadtests.generator.clock_asking import ASKING_MOST_S

PLAYED_MOST_S = 60.0


def play(out: Path, **case: Any) -> tuple[SimpleNamespace, str]:
    """Return what the master did and what it said on standard error."""
    command = [sys.executable, "-m", "tests.harness.far_workers", str(out), json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PLAYED_MOST_S, check=False)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(**json.loads(done.stdout)), done.stderr


def test_the_clocks_of_twenty_far_workers_are_read_in_the_time_of_one(tmp_path: Path) -> None:
    """One after another each took all of its time: with a few dozen nothing began before everybody gave up."""
    round_trip_s = 0.05
    seen, _ = play(tmp_path, workers=20, round_trip_s=round_trip_s, asking_most_s=0.6)
    assert 0 < seen.begun_after_s < 4.0
    assert len(seen.starts_us) == 20
    assert max(seen.starts_us) - min(seen.starts_us) <= round_trip_s * 1e6, "one instant, told each by its own clock"
    assert all(8 <= questions <= 13 for questions in seen.questions), "each clock by several round trips of its own"


def test_questions_to_near_workers_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """The wait would count as round trip, and the clocks of many would be known less surely than those of few."""
    seen, _ = play(tmp_path, workers=40, round_trip_s=0, asking_most_s=5)
    assert len(seen.starts_us) == 40
    assert seen.under_way_most <= 4, "one, but for a machine that stands still for a moment"


def test_no_worker_is_asked_at_the_cost_of_another(tmp_path: Path) -> None:
    """By a plain lock the first few ask again and again, and the last never."""
    seen, _ = play(tmp_path, workers=40, round_trip_s=0.004, asking_most_s=0.6)
    assert max(seen.questions) - min(seen.questions) <= 2, seen.questions


@pytest.mark.parametrize("when", ["before", "after"])
def test_workers_that_do_not_tell_their_time_end_the_run_in_one_line_and_nothing_is_written(
    when: str, tmp_path: Path
) -> None:
    case = {"workers": 20, "round_trip_s": 0.002, "asking_most_s": 0.5, f"silent_{when}": [6, 11]}
    seen, stderr = play(tmp_path / "run", **case)
    assert (seen.over["code"], seen.exit_code) == (3, 3)
    assert "worker 7 of 20 and 1 more did not tell the time within" in seen.over["why"]
    assert "see that the host is awake and the network answers within a second, then run again" in seen.over["why"]
    assert stderr == f"flash_sale: {seen.over['why']}\n"
    assert not list((tmp_path / "run").iterdir())
    assert len(seen.starts_us) == (20 if when == "after" else 0), "who was not asked whole is not begun"


def test_who_waits_for_the_start_waits_as_long_as_it_may_take(tmp_path: Path) -> None:
    seen, _ = play(tmp_path, workers=1, round_trip_s=0, asking_most_s=ASKING_MOST_S)
    assert seen.start_takes_s < min(load.READY_MOST_S, seen.go_waits_s)
