"""Where latency turns upward as load rises. Pure.

Method: V. Satopää, J. Albrecht, D. Irwin, B. Raghavan, "Finding a 'Kneedle' in a Haystack" (ICDCS Workshops 2011),
for a convex rising curve: both axes are scaled to 0..1, and the knee is the point that lies farthest below the
diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

POINTS_LEAST: Final = 4
RISE_LEAST: Final = 2.0  # the last latency over the first; a curve that hardly rises has no knee
DEPTH_LEAST: Final = 0.1  # below the diagonal; a straight line has none


def curve(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return one (rate, median latency) for each rate, rising by rate."""
    by_rate: dict[float, list[float]] = {}
    for rate, latency in points:
        by_rate.setdefault(rate, []).append(latency)
    return [(rate, median(values)) for rate, values in sorted(by_rate.items())]


def knee(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the rate after which latency climbs, or None when the curve shows none.

    Args:
        points: (rate, latency) of every trial, in any order and unit; several of one rate count by their median.
    """
    line = curve(points)
    if len(line) < POINTS_LEAST:
        return None
    low, high = min(y for _, y in line), max(y for _, y in line)
    if low <= 0 or high < RISE_LEAST * low:
        return None
    first, last = line[0][0], line[-1][0]
    depth, rate = max(((x - first) / (last - first) - (y - low) / (high - low), x) for x, y in line)
    return rate if depth >= DEPTH_LEAST else None
