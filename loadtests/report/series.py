"""The history as series over time and over percentiles: small lists that a chart can draw, whatever the
run's size.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from loadtests.checkers.answers import has_order, is_sent
from loadtests.record.figures import outcome_of
from loadtests.record.history import Attempt
from loadtests.record.identity import AFTERWARDS
from loadtests.record.latency import open_histogram
from loadtests.record.summary import Recorded, Window

BUCKETS_MOST: Final = 120
OUTCOMES_MOST: Final = 6  # more would be a rainbow nobody reads; the rest is one band
REST: Final = "other"
_FROM_BELOW: Final = ("accepted", "replayed", "sold_out", "limit_reached", "unknown")  # one colour each in every report
_WIDTHS_US: Final = tuple(
    base * scale for scale in (100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000) for base in (1, 2, 5)
)
# 1 / (1 - quantile): where the spectrum is looked at, evenly on its log axis.
_NINES: Final = tuple(10 ** (step / 12) for step in range(12 * 5 + 1))


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One sale, cut into equal buckets of time on the history's clock."""

    begin_us: int
    width_us: int
    per_second: dict[str, list[float]]  # outcome -> answers a second in each bucket, the lowest band first
    p50_us: list[float | None]  # of accepted orders in each bucket, from the intended instant
    p99_us: list[float | None]

    def seconds(self, bucket: int) -> float:
        """Return when a bucket begins, in seconds since the sale began."""
        return bucket * self.width_us / 1_000_000


def over_time(attempts: Iterable[Attempt], window: Window) -> Series:
    """Return the place attempts of a sale over time, in at most 120 buckets."""
    span_us = max(window.end_us - window.begin_us, 1)
    width_us = next((w for w in _WIDTHS_US if span_us <= w * BUCKETS_MOST), span_us // BUCKETS_MOST + 1)
    buckets = span_us // width_us + 1
    counts: dict[str, list[int]] = {}
    took: list[list[int]] = [[] for _ in range(buckets)]
    for attempt in attempts:
        if attempt.op != "place" or attempt.why in AFTERWARDS or not is_sent(attempt):
            continue
        bucket = min(max(attempt.done_us - window.begin_us, 0) // width_us, buckets - 1)
        outcome = outcome_of(attempt)
        counts.setdefault(outcome, [0] * buckets)[bucket] += 1
        if has_order(attempt) and attempt.outcome == "accepted":
            took[bucket].append(attempt.done_us - attempt.intended_us)
    for values in took:
        values.sort()
    return Series(
        begin_us=window.begin_us,
        width_us=width_us,
        per_second={
            name: [count * 1_000_000 / width_us for count in of] for name, of in _fewest(counts, buckets).items()
        },
        p50_us=[_quantile(values, 0.5) for values in took],
        p99_us=[_quantile(values, 0.99) for values in took],
    )


def _fewest(counts: dict[str, list[int]], buckets: int) -> dict[str, list[int]]:
    """Keep the most frequent outcomes by name and put the rest together."""
    ranked = [name for name, _ in Counter({name: sum(of) for name, of in counts.items()}).most_common()]
    named = sorted(ranked[:OUTCOMES_MOST], key=lambda name: _FROM_BELOW.index(name) if name in _FROM_BELOW else 99)
    kept = {name: counts[name] for name in named}
    rest = ranked[OUTCOMES_MOST:]
    if rest:
        kept[REST] = [sum(counts[name][bucket] for name in rest) for bucket in range(buckets)]
    return kept


def _quantile(ordered: Sequence[int], quantile: float) -> float | None:
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * quantile))]) if ordered else None


def spectrum(recorded: Recorded) -> list[tuple[float, float]]:
    """Return (1 / (1 - quantile), µs) of a histogram up to where it has ten values left, for a log axis."""
    if not recorded.count:
        return []
    histogram = open_histogram(recorded)
    last = bisect.bisect_right(_NINES, max(1.0, recorded.count / 10))
    quantiles = [(1 - 1 / nines) * 100 for nines in _NINES[: max(last, 2)]]
    at = histogram.get_percentile_to_value_dict(quantiles)
    return [(nines, float(min(at[quantile], recorded.max))) for nines, quantile in zip(_NINES, quantiles, strict=False)]
