"""Percentiles: how exact they are, when they may be printed, their intervals, and merging without loss."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from loadtests.generator.recorder import Buckets
from loadtests.record.latency import (
    PERCENTILES,
    interval_ranks,
    latency_of,
    latency_of_values,
    merge,
    most_at_p99,
    printable,
    quantile,
)
from loadtests.record.stock_locust import percentile_ms, rounded_ms
from loadtests.record.summary import Recorded

MILLION = 1_000_000
SHARES = (0.5, 0.9, 0.99, 0.999)


def recorded(values_us: list[int]) -> Recorded:
    buckets = Buckets()
    buckets.add_all(values_us)
    summary = buckets.summary()
    return Recorded(hdr=summary.hdr, count=summary.count, max=summary.max, over=summary.over)


@pytest.mark.parametrize("shape", ["log-uniform from 1 µs to 60 s", "log-normal around 3 ms"])
def test_percentiles_of_a_million_values_are_within_a_thousandth_of_the_exact_ones(shape: str) -> None:
    dice = random.Random(shape)
    if shape.startswith("log-uniform"):
        values = [int(60_000_000 ** dice.random()) for _ in range(MILLION)]
    else:
        values = [int(dice.lognormvariate(8, 1)) + 1 for _ in range(MILLION)]
    latency = latency_of(recorded(values))
    values.sort()
    for name, share in PERCENTILES.items():
        exact, told = quantile(values, share), getattr(latency, name)
        assert abs(told - exact) <= 0.001 * exact, (name, told, exact)
    assert (latency.max, latency.count) == (values[-1], MILLION)


@given(st.integers(1, 60_000_000))
def test_every_single_value_is_kept_within_a_thousandth(value_us: int) -> None:
    (edge_us,) = recorded_edges(value_us)
    assert abs(edge_us - value_us) <= 0.001 * value_us


def recorded_edges(value_us: int) -> list[int]:
    histogram = Buckets()
    histogram.add(value_us)
    real = histogram.histogram()
    return [int(real.get_value_at_percentile(100))]


def test_histograms_of_several_processes_are_merged_without_loss() -> None:
    """Stops: averaged percentiles, which are the percentiles of nothing."""
    dice = random.Random(4)
    values = [int(10 ** dice.uniform(0, 7.9)) for _ in range(20_000)]  # some are above 60 s
    parts = [{"accepted": recorded(values[worker::3])} for worker in range(3)]
    merged, whole = merge([*parts, {"sold_out": recorded(values)}]), recorded(values)
    assert merged["sold_out"].count == len(values)
    one, other = (HdrHistogram.decode(each.hdr.encode()) for each in (merged["accepted"], whole))
    assert one.equals(other) and list(one.counts) == list(other.counts)
    assert latency_of(merged["accepted"]) == latency_of(whole)
    assert (merged["accepted"].over, merged["accepted"].max) == (whole.over, max(values))


def test_a_percentile_is_printed_only_with_a_hundred_values_beyond_it() -> None:
    for count, printed in ((199, []), (200, ["p50"]), (1_000, ["p50", "p90"]), (9_999, ["p50", "p90"])):
        for latency in (latency_of(recorded([7] * count)), latency_of_values([7] * count)):
            assert [name for name in PERCENTILES if getattr(latency, name) is not None] == printed
    assert printable(10_000, 0.99) and not printable(99_999, 0.999) and printable(100_000, 0.999)


@given(st.integers(1, 60), st.sampled_from(SHARES))
def test_interval_ranks_are_the_binomials_own(count: int, share: float) -> None:
    """Against the distribution written out: no rank could be closer to the middle."""

    def below(rank: int) -> float:
        return sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(rank))

    lower = max((rank for rank in range(count + 1) if below(rank) <= 0.025), default=0)
    upper = min((rank for rank in range(1, count + 2) if 1 - below(rank) <= 0.025 + 1e-12), default=count + 1)
    found = interval_ranks(count, share)
    assert found == ((lower, upper) if 1 <= lower < upper <= count else None)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_intervals_hold_the_true_quantile_19_times_in_20(share: float) -> None:
    dice, held, rounds = random.Random(11), 0, 600
    for _ in range(rounds):
        values = sorted(int(-math.log(1 - dice.random()) * 1e6) for _ in range(1_000))
        lower, upper = latency_of_values(values).interval_us[f"p{round(share * 100)}"]
        held += lower <= -math.log(1 - share) * 1e6 <= upper
    assert 0.93 <= held / rounds <= 1


def test_too_few_values_judge_a_budget_by_the_most_it_may_have_been() -> None:
    assert most_at_p99(latency_of_values(range(300))) == 299  # no upper rank exists: the largest there is
    assert 990 <= most_at_p99(latency_of_values(range(1_000))) <= 999


def test_stock_locusts_arithmetic_is_locusts_own() -> None:
    """Asked of Locust itself, in a process of its own: importing it patches the standard library."""
    dice = random.Random(3)
    times = [
        dice.choice((0.2, 7.5, 99.6, 148.4, 949.9, 3_449, 9_960, 27_400)) * dice.uniform(0.9, 1.1) for _ in range(999)
    ]
    asked = (
        "import json, sys\nfrom locust.stats import bucket_response_time as rounded\n"
        "from locust.stats import calculate_response_time_percentile as percentile\n"
        "times = json.loads(sys.argv[1])\nkept = [rounded(t) for t in times]\n"
        "counts = {k: kept.count(k) for k in set(kept)}\n"
        "print(json.dumps([kept, [percentile(counts, len(kept), q) for q in (0.5, 0.9, 0.99, 0.999)]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked, str(times)], capture_output=True, text=True, check=True, timeout=60
    )
    kept = [rounded_ms(milliseconds) for milliseconds in times]
    assert done.stdout.strip().splitlines()[-1] == str([kept, [percentile_ms(sorted(kept), q) for q in SHARES]])
