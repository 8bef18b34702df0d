"""A generator that is on time with asking and late with reading is not believed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from loadtests.generator.stamps import EVERY
from loadtests.record.figures import read_lags, wake_lag_p99_us
from loadtests.record.fitness import late, wake_lag_most_us
from loadtests.record.history import read
from loadtests.record.identity import first_places
from loadtests.record.latency import latency_of_values, quantile
from loadtests.record.summary import Generator
from tests.harness.test_generator import HERE, assert_counted, null_shop, start

RATE, SECONDS = 50, 4
STANDS_STILL_S = 0.008  # of late_reader.py; to import it would bring Locust into this process


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the late reader: its arrivals are 20 ms apart, so that it stands still in between only."""
    out = tmp_path_factory.mktemp("late") / "run"
    with null_shop("--stock", "20", "--hold-ms", "60000") as url:
        more = ("--fp-think", "0", "--fp-cold", "0", "--fp-drain", "1")
        process = start(url, out, RATE, SECONDS, *more, scenario=HERE / "late_reader.py")
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    return out


def test_replies_that_waited_in_the_kernel_make_the_run_void_though_arrivals_were_on_time(out: Path) -> None:
    """Stops: latencies that are mostly the generator's own, in a run that calls itself valid."""
    attempts = list(read(out / "history.jsonl"))
    generator = msgspec.json.decode((out / "generator.json").read_bytes(), type=Generator)
    firsts = first_places(attempts).values()
    lags = read_lags(attempts)
    assert generator.read_lag_us is not None and generator.read_lag_us.replies == len(lags) > RATE * SECONDS / EVERY / 2
    assert quantile(lags, 0.99) >= STANDS_STILL_S * 1e6 / 2
    assert quantile(sorted(a.wake_lag_us for a in firsts), 0.5) < STANDS_STILL_S * 1e6 / 2
    reported = latency_of_values(a.done_us - a.intended_us for a in firsts)
    most_us = wake_lag_most_us(reported)
    reasons = list(late(generator, 0, quantile(lags, 0.99), most_us))
    assert any("late at p99 to read replies that had arrived" in reason for reason in reasons)
    assert not any("to read replies" in reason for reason in late(generator, wake_lag_p99_us(firsts), None, most_us))


def test_what_was_read_late_is_in_the_history_and_can_be_counted_again(out: Path) -> None:
    assert_counted(out)
