"""The run as series over time and over percentiles: short lists that a chart can draw, whatever the run's size."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from loadtests.checkers.answers import has_order, is_sent
from loadtests.record.counted import AFTERWARDS, outcome_of
from loadtests.record.history import Attempt
from loadtests.record.latency import open_histogram, quantile
from loadtests.record.summary import Recorded, Window
from loadtests.record.timeline import Sample

BUCKETS_MOST: Final = 120
SAMPLES_MOST: Final = 240  # points of one line
OUTCOMES_MOST: Final = 6  # more would be a rainbow nobody reads; the rest is one line
REST: Final = "other"
_IN_ORDER: Final = ("accepted", "replayed", "sold_out", "limit_reached", "unknown")  # one colour each in every report
_WIDTHS_US: Final = tuple(
    base * scale for scale in (100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000) for base in (1, 2, 5)
)
# 1 / (1 - quantile): where the spectrum is looked at, evenly on its log axis.
NINES: Final = tuple(10 ** (step / 12) for step in range(12 * 5 + 1))
Values = list[float | None]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One sale, cut into equal buckets of time on the history's clock."""

    begin_us: int
    width_us: int
    offered: list[float]  # arrivals a second that the plan had due in each bucket
    per_second: dict[str, list[float]]  # outcome -> answers a second in each bucket
    p50_us: Values  # of accepted orders in each bucket, from the intended instant
    p99_us: Values
    service_p99_us: Values  # the same orders from the send
    wake_lag_us: Values  # p99 of how late the generator itself was
    backlog_us: Values  # p99 of the wait for a free connection or an earlier answer
    connect_us: Values  # p99 of opening a connection
    read_lag_us: Values  # p99 of how late replies were read, of those looked at

    def seconds(self, bucket: int) -> float:
        """Return when a bucket begins, in seconds since the sale began."""
        return bucket * self.width_us / 1_000_000


class _Buckets:
    """Values sorted into the buckets of time they belong to."""

    def __init__(self, window: Window) -> None:
        span_us = max(window.end_us - window.begin_us, 1)
        self.begin_us = window.begin_us
        self.width_us = next((w for w in _WIDTHS_US if span_us <= w * BUCKETS_MOST), span_us // BUCKETS_MOST + 1)
        self.count = span_us // self.width_us + 1

    def of(self, at_us: int) -> int:
        return min(max(at_us - self.begin_us, 0) // self.width_us, self.count - 1)

    def values(self, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in range(self.count)]
        for at_us, value in pairs:
            found[self.of(at_us)].append(value)
        for of_one in found:
            of_one.sort()
        return found

    def per_second(self, counts: Sequence[int]) -> list[float]:
        return [count * 1_000_000 / self.width_us for count in counts]


def over_time(attempts: Iterable[Attempt], firsts: Iterable[Attempt], window: Window) -> Series:
    """Return the place attempts of a sale over time, in at most 121 buckets.

    Args:
        attempts: the history.
        firsts: the first attempt of each arrival.
        window: from when to when the sale ran.
    """
    buckets, every = _Buckets(window), list(attempts)
    places = [a for a in every if a.op == "place" and a.why not in AFTERWARDS and is_sent(a)]
    arrivals = list(firsts)
    accepted = [a for a in places if has_order(a) and a.outcome == "accepted"]
    took = buckets.values((a.done_us, a.done_us - a.intended_us) for a in accepted)
    served = buckets.values((a.done_us, a.done_us - a.sent_us) for a in accepted)
    sent = [a for a in arrivals if a.sent_us]
    read = buckets.values((a.done_us, a.read_late_us) for a in every if a.read_late_us is not None)
    due = Counter(buckets.of(a.intended_us) for a in arrivals)
    return Series(
        begin_us=buckets.begin_us,
        width_us=buckets.width_us,
        offered=buckets.per_second([due[n] for n in range(buckets.count)]),
        per_second=_outcomes(places, buckets),
        p50_us=_quantiles(took, 0.5),
        p99_us=_quantiles(took, 0.99),
        service_p99_us=_quantiles(served, 0.99),
        wake_lag_us=_quantiles(buckets.values((a.intended_us, a.wake_lag_us) for a in sent), 0.99),
        backlog_us=_quantiles(buckets.values((a.intended_us, a.waited_us) for a in sent), 0.99),
        connect_us=_quantiles(buckets.values((a.intended_us, a.connect_us) for a in sent), 0.99),
        read_lag_us=_quantiles(read, 0.99),
    )


def _outcomes(places: Sequence[Attempt], buckets: _Buckets) -> dict[str, list[float]]:
    """Count the most frequent outcomes by name and the rest together; there may be a hundred thousand of them."""
    ranked = [name for name, _ in Counter(outcome_of(a) for a in places).most_common(OUTCOMES_MOST + 1)]
    named = set(ranked[:OUTCOMES_MOST])
    in_order = sorted(named, key=lambda name: (_IN_ORDER.index(name) if name in _IN_ORDER else 99, name))
    counts = {name: [0] * buckets.count for name in [*in_order, *([REST] if len(ranked) > OUTCOMES_MOST else [])]}
    for attempt in places:
        name = outcome_of(attempt)
        counts[name if name in named else REST][buckets.of(attempt.done_us)] += 1
    return {name: buckets.per_second(of) for name, of in counts.items()}


def _quantiles(buckets: Sequence[Sequence[int]], share: float) -> Values:
    return [float(quantile(values, share)) if values else None for values in buckets]


def spectrum(recorded: Recorded) -> list[tuple[float, float]]:
    """Return (1 / (1 - quantile), µs) of a histogram up to where it has ten values left, for a log axis."""
    if not recorded.count:
        return []
    histogram = open_histogram(recorded)
    last = bisect.bisect_right(NINES, max(1.0, recorded.count / 10))
    quantiles = [(1 - 1 / nines) * 100 for nines in NINES[: max(last, 2)]]
    at = histogram.get_percentile_to_value_dict(quantiles)
    return [(nines, float(min(at[quantile], recorded.max))) for nines, quantile in zip(NINES, quantiles, strict=False)]


class Thinned(msgspec.Struct, frozen=True, kw_only=True):
    """A timeline of at most 240 points."""

    at_us: list[int]
    groups: list[list[Sample]]

    def line(self, look: Callable[[Sample], float | None], of: Callable[[Sequence[float]], float] = max) -> Values:
        """Return one value a point: ``of`` of all that were seen in it; None: nothing was."""
        seen = ([value for sample in group if (value := look(sample)) is not None] for group in self.groups)
        return [of(values) if values else None for values in seen]


def thinned(samples: Sequence[Sample], window: Window, before_us: int, after_us: int) -> Thinned:
    """Return the samples around a sale in groups of two or more, for gauges are read at every second look."""
    inside = [s for s in samples if window.begin_us - before_us <= s.at_us <= window.end_us + after_us]
    size = max(2, -(-len(inside) // SAMPLES_MOST))
    groups = [inside[at : at + size] for at in range(0, len(inside), size)]
    return Thinned(at_us=[group[0].at_us for group in groups], groups=groups)
