"""The recorder's buckets are HdrHistogram's own, and its files hold what was noted."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
from hdrh.histogram import HdrHistogram

from loadtests.generator.recorder import LATENCY_US_MOST, Buckets, Recorder
from loadtests.record.history import Attempt, Charge, read, read_charges


def test_the_buckets_lose_nothing_against_hdrhistogram() -> None:
    dice, buckets, real = random.Random(7), Buckets(), HdrHistogram(1, LATENCY_US_MOST, 3)
    for _ in range(20_000):
        value_us = int(10 ** dice.uniform(0, 7.7))
        buckets.add(value_us)
        real.record_value(value_us)
    mine = buckets.histogram()
    assert list(mine.counts) == list(real.counts)
    assert buckets.summary().p99 == real.get_value_at_percentile(99)


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
