"""The recorder's buckets are HdrHistogram's own, and its files hold what was noted."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
from hdrh.histogram import HdrHistogram

from loadtests.generator.recorder import LATENCY_US_MOST, OTHER, Buckets, Recorder
from loadtests.record.counted import histogram_of
from loadtests.record.history import Attempt, Charge, read, read_charges
from loadtests.record.rebuild import histogram_differences, rebuild
from loadtests.record.summary import Histograms


def test_the_buckets_lose_nothing_against_hdrhistogram() -> None:
    dice, buckets, real = random.Random(7), Buckets(), HdrHistogram(1, LATENCY_US_MOST, 3)
    for _ in range(20_000):
        value_us = int(10 ** dice.uniform(0, 7.7))
        buckets.add(value_us)
        real.record_value(value_us)
    mine = buckets.histogram()
    assert list(mine.counts) == list(real.counts)
    assert buckets.summary().p99 == real.get_value_at_percentile(99)


def test_counting_many_at_once_is_counting_each() -> None:
    dice, one_by_one, at_once = random.Random(9), Buckets(), Buckets()
    values = [int(10 ** dice.uniform(0, 7.7)) for _ in range(5_000)] + [-3, 0, LATENCY_US_MOST, LATENCY_US_MOST + 7]
    for value_us in values:
        one_by_one.add(value_us)
    for cut in range(0, len(values) + 500, 500):
        at_once.add_all(values[cut : cut + 500])
    assert at_once.counts == one_by_one.counts
    assert (at_once.total, at_once.max_us, at_once.over) == (one_by_one.total, one_by_one.max_us, one_by_one.over)


def test_what_is_asked_for_counts_what_is_still_held(tmp_path: Path) -> None:
    """Attempts are settled in bundles; a figure asked for in between must not miss the last of them."""
    recorder = Recorder(tmp_path)
    for number in range(3):
        recorder.note(attempt_of(number), "accepted")
        assert (recorder.requests, recorder.accepted) == (number + 1, number + 1)
    recorder.note(attempt_of(3))
    assert recorder.requests == 3  # never sent
    assert recorder.window() == (250, 0), "one order says nothing of how long they take"
    recorder.close()
    assert [attempt.arrival for attempt in read(tmp_path / "history.jsonl")] == [0, 1, 2, 3]


def attempt_of(arrival: int) -> Attempt:
    return Attempt(
        arrival=arrival, op="place", why="first", buyer="b", intended_us=100, sent_us=150, done_us=350, result="ok"
    )


def test_percentiles_are_within_a_thousandth_of_the_exact_ones() -> None:
    dice, buckets = random.Random(8), Buckets()
    values = sorted(int(dice.lognormvariate(8, 1)) + 1 for _ in range(100_000))
    for value_us in values:
        buckets.add(value_us)
    summary = buckets.summary()
    for share, told in ((0.5, summary.p50), (0.9, summary.p90), (0.99, summary.p99), (0.999, summary.p999)):
        exact = values[int(share * len(values) + 0.5) - 1]
        assert abs(told - exact) <= 0.001 * exact + 1
    assert summary.max == values[-1]


def test_values_beyond_the_range_are_counted_and_told() -> None:
    buckets = Buckets()
    for value_us in (-5, 0, 90_000_000):
        buckets.add(value_us)
    summary = buckets.summary()
    assert (summary.count, summary.over, summary.max) == (3, 1, 90_000_000)


def test_what_was_noted_is_in_the_files(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run")
    attempt = Attempt(
        arrival=1, op="place", why="first", buyer="b", intended_us=100, sent_us=150, done_us=350, result="ok"
    )
    charge = Charge(event_id="e", order_id="0" * 32, amount=1, currency="CNY", at_us=5)
    recorder.charge(charge)
    assert list(read_charges(tmp_path / "run" / "charges.jsonl")) == [charge]  # at once, not at the end
    recorder.note(attempt, "accepted")
    recorder.note(attempt, "accepted_after_retry", from_us=0)
    recorder.close()
    assert list(read(tmp_path / "run" / "history.jsonl")) == [attempt, attempt]
    summaries = msgspec.json.decode((tmp_path / "run" / "histograms.json").read_bytes())
    latency, service = summaries["latency"], summaries["service"]
    assert {name: one["max"] for name, one in latency.items()} == {"accepted": 250, "accepted_after_retry": 350}
    assert {name: one["max"] for name, one in service.items()} == {"accepted": 200, "accepted_after_retry": 200}
    assert HdrHistogram.decode(latency["accepted"]["hdr"].encode()).get_total_count() == 1


def test_more_names_than_are_kept_are_counted_again_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shop that puts a number into each code: what is too much stands under one name, and is still verified."""
    most = 20  # a histogram is read in a hundredth of a second
    for user in ("generator.recorder", "record.rebuild"):
        monkeypatch.setattr(f"loadtests.{user}.NAMES_MOST", most)
    recorder = Recorder(tmp_path)
    for number in range(3 * most):
        attempt = msgspec.structs.replace(attempt_of(number), outcome=f"code-{number % (2 * most)}")
        recorder.note(attempt, histogram_of(attempt))
    own = ("accepted", "sold_out", "unknown", "delivered")
    for outcome in own:  # as late as that, and still under their own names: budgets stand on them
        attempt = msgspec.structs.replace(attempt_of(1), outcome=outcome)
        recorder.note(attempt, histogram_of(attempt))
    recorder.close()
    said = msgspec.json.decode((tmp_path / "histograms.json").read_bytes(), type=Histograms).latency
    assert len(said) == most + 1 + len(own) and set(own) < set(said)
    found, _ = rebuild(read(tmp_path / "history.jsonl"), [])
    assert list(histogram_differences("latency", said, found)) == []
    kept = next(name for name in said if name.startswith("code"))
    less = {**found, kept: Buckets()}
    assert [one.split(":")[1] for one in histogram_differences("latency", said, less)] == [f" latency.{kept}"]
    more = {**found, "code-new": found[kept]}
    assert [one.split(":")[1] for one in histogram_differences("latency", said, more)] == [f" latency.{OTHER}"]
