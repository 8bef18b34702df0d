"""What may be said of a latency: percentiles with enough values beyond them, each with its interval; and merging.

A percentile is printed only where at least 100 values lie beyond it: p99 needs 10,000 values. Its 95 % confidence
interval is made of two order statistics of the sample itself, whose ranks come from the binomial distribution
(Meeker, Hahn and Escobar, Statistical Intervals, 2nd edition, 2017, section 5.2; Le Boudec, Performance Evaluation
of Computer and Communication Systems, 2010, theorem 2.1). It supposes no shape of the distribution, but
independent values; those of one run lean on each other, so the true interval is wider.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from hdrh.codec import HdrCookieException, HdrLengthException
from hdrh.histogram import HdrHistogram

from loadtests.record.summary import Latency, Recorded

PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
BEYOND_LEAST: Final = 100  # values beyond a percentile that is printed
CONFIDENCE: Final = 0.95
US_MOST: Final = 60_000_000  # a histogram's range; more counts as this, and its maximum tells
DIGITS: Final = 3  # of HdrHistogram: 2,048 sub-buckets, so at most 1/1024 from edge to edge
_SIGMAS: Final = 10.0  # beyond these the binomial's tail is nothing
_BROKEN: Final = (ValueError, RuntimeError, IndexError, TypeError, zlib.error, HdrCookieException, HdrLengthException)


def printable(count: int, share: float) -> bool:
    """Return whether the ``share`` quantile of ``count`` values has at least 100 values beyond it."""
    return round(count * (1 - share), 6) >= BEYOND_LEAST


@lru_cache(maxsize=4096)
def interval_ranks(count: int, share: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Return the ranks (from 1) of the two values between which a quantile lies with that confidence.

    With B binomial of (count, share), the lower is the largest rank l with P(B < l) ≤ half of what is left, the
    upper the smallest u with P(B ≥ u) ≤ the same; None where the sample is too small for one of them.
    """
    tail = (1 - confidence) / 2
    sigma = math.sqrt(count * share * (1 - share))
    first = max(0, math.floor(count * share - _SIGMAS * sigma) - 2)
    last = min(count, math.ceil(count * share + _SIGMAS * sigma) + 2)
    below, lower = 0.0, 0
    for rank in range(first, last + 1):
        below += _binomial(count, share, rank)  # P(B ≤ rank) = P(B < rank + 1)
        if below > tail:
            lower = rank
            break
    above, upper = 0.0, count + 1
    for rank in range(last, first - 1, -1):
        above += _binomial(count, share, rank)  # P(B ≥ rank)
        if above > tail:
            upper = rank + 1
            break
    return (lower, upper) if 1 <= lower < upper <= count else None


def _binomial(count: int, share: float, successes: int) -> float:
    if not 0 <= successes <= count:
        return 0.0
    ways = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    return math.exp(ways + successes * math.log(share) + (count - successes) * math.log1p(-share))


def open_histogram(recorded: Recorded) -> Any:
    """Return the HdrHistogram of a recorded one.

    Raises:
        ValueError: the text is no HdrHistogram.
    """
    try:
        return HdrHistogram.decode(recorded.hdr.encode("ascii"))
    except _BROKEN as error:
        raise ValueError(f"not an HdrHistogram ({error})") from error


def latency_of(recorded: Recorded) -> Latency:
    """Return what may be said of a histogram, taken from the histogram itself.

    Raises:
        ValueError: it is no histogram.
    """
    if not recorded.count:
        return Latency()
    histogram, most = open_histogram(recorded), round(recorded.max)
    ranks = {name: interval_ranks(recorded.count, share) for name, share in PERCENTILES.items()}
    wanted = [share * 100 for share in PERCENTILES.values()]
    wanted += [100 * rank / recorded.count for pair in ranks.values() if pair for rank in pair]
    at = histogram.get_percentile_to_value_dict(sorted(set(wanted)))
    return Latency(
        **{
            name: min(int(at[share * 100]), most) if printable(recorded.count, share) else None
            for name, share in PERCENTILES.items()
        },
        max=most,
        count=recorded.count,
        interval_us={
            name: (
                int(histogram.get_lowest_equivalent_value(at[100 * pair[0] / recorded.count])),
                min(int(at[100 * pair[1] / recorded.count]), most),
            )
            for name, pair in ranks.items()
            if pair
        },
    )


def latency_of_values(values_us: Iterable[int]) -> Latency:
    """Return the same of a plain list of values in µs, exactly."""
    took = sorted(values_us)
    if not took:
        return Latency()
    ranks = {name: interval_ranks(len(took), share) for name, share in PERCENTILES.items()}
    return Latency(
        **{name: quantile(took, share) if printable(len(took), share) else None for name, share in PERCENTILES.items()},
        max=took[-1],
        count=len(took),
        interval_us={name: (took[pair[0] - 1], took[pair[1] - 1]) for name, pair in ranks.items() if pair},
    )


def quantile(ascending: Sequence[int], share: float) -> int:
    """Return the value at a share of an ascending list, by the same rank that HdrHistogram takes (0: no values)."""
    return ascending[max(1, int(share * len(ascending) + 0.5)) - 1] if ascending else 0


def most_at_p99(latency: Latency) -> int:
    """Return what a p99 may be with 97.5 % confidence: its interval's upper end, or the largest value there is."""
    return latency.interval_us["p99"][1] if "p99" in latency.interval_us else latency.max


def merge(parts: Iterable[dict[str, Recorded]]) -> dict[str, Recorded]:
    """Return the histograms of several processes as one set: counts are added bucket by bucket, so nothing is lost.

    Raises:
        ValueError: a text is no HdrHistogram.
    """
    by_name: dict[str, list[Recorded]] = {}
    for part in parts:
        for name, recorded in part.items():
            by_name.setdefault(name, []).append(recorded)
    return {name: _added(same) for name, same in sorted(by_name.items())}


def _added(same: list[Recorded]) -> Recorded:
    whole = HdrHistogram(1, US_MOST, DIGITS)
    for recorded in same:
        if recorded.count:
            whole.add(open_histogram(recorded))
    count, most = sum(recorded.count for recorded in same), max(recorded.max for recorded in same)
    at = whole.get_percentile_to_value_dict([share * 100 for share in PERCENTILES.values()]) if count else {}
    return Recorded(
        hdr=encoded(whole),
        count=count,
        max=most,
        over=sum(recorded.over for recorded in same),
        **{name: min(at.get(share * 100, 0), most) for name, share in PERCENTILES.items()},
    )


def encoded(histogram: Any) -> str:
    """Return HdrHistogram's own base64 text."""
    text = histogram.encode()
    return text.decode("ascii") if isinstance(text, bytes) else str(text)
