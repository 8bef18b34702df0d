"""The interval of a difference between two runs, by resampling blocks of time.

Requests of one run are not independent: one slow fsync makes a hundred of them slow together. So not requests but
whole blocks of a second or more are drawn again, with replacement (the block bootstrap: H. R. Künsch, The Jackknife and
the Bootstrap for General Stationary Observations, Annals of Statistics 17, 1989; A. C. Davison and D. V. Hinkley,
Bootstrap Methods and their Application, 1997, section 8.2). Both runs have the same arrivals, so the same blocks are
drawn from both: what the moment of the sale does to a figure then cancels out. The interval is that of percentiles,
expanded for few blocks (T. C. Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69,
2015): plain percentiles of twenty blocks are too sure of themselves.

What it cannot see: whatever differs from one run to the next and not within one, such as a neighbour on the machine.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist
from typing import Final

import msgspec

BLOCK_US_LEAST: Final = 1_000_000  # far longer than one hiccup
BLOCKS_MOST: Final = 40
BLOCKS_LEAST: Final = 8  # fewer say nothing of how much a block differs from the next
RESAMPLES: Final = 2_000
CONFIDENCE: Final = 0.99  # fifteen measures at once: at 95 % every second comparison would be a false alarm
_SEED: Final = 1989  # the same runs give the same interval
_LOST_MOST: Final = 0.01  # of the draws: that many may hold nothing to divide by
Weights = Sequence[int]  # how often each block was drawn
Figure = Callable[[Weights | None], float | None]  # of one run; None: as it was


class Blocks(msgspec.Struct, frozen=True, kw_only=True):
    """A sale cut into equal blocks of time; what comes before or after belongs to the first or last."""

    begin_us: int
    length_us: int
    count: int

    def of(self, at_us: int) -> int:
        """Return the block of an instant."""
        return min(max(at_us - self.begin_us, 0) // self.length_us, self.count - 1)


def blocks_of(begin_us: int, span_us: int) -> Blocks:
    """Return the blocks of a sale that long."""
    length_us = max(BLOCK_US_LEAST, -(-span_us // BLOCKS_MOST))
    return Blocks(begin_us=begin_us, length_us=length_us, count=max(1, span_us // length_us))


class Values:
    """One run's values in their blocks, of which quantiles are asked."""

    def __init__(self, blocks: Blocks, pairs: Iterable[tuple[int, int]]) -> None:
        """Take (instant in µs, value) pairs."""
        self._blocks: list[list[int]] = [[] for _ in range(blocks.count)]
        for at_us, value in pairs:
            self._blocks[blocks.of(at_us)].append(value)
        for values in self._blocks:
            values.sort()
        self._all = sorted(value for values in self._blocks for value in values)

    def quantile(self, share: float, weights: Weights | None = None) -> float | None:
        """Return the smallest value with at least that share of the drawn ones at or below it; None: there are none."""
        drawn = [(values, weights[n] if weights else 1) for n, values in enumerate(self._blocks)]
        drawn = [(values, times) for values, times in drawn if times and values]
        rank = max(1, math.ceil(share * sum(len(values) * times for values, times in drawn) - 1e-9))
        if not drawn:
            return None
        low, high = 0, len(self._all) - 1
        while low < high:
            middle = (low + high) // 2
            value = self._all[middle]
            if sum(bisect_right(values, value) * times for values, times in drawn) >= rank:
                high = middle
            else:
                low = middle + 1
        return float(self._all[low])


class Totals:
    """One run's quotient of two totals: orders by seconds, processor time by orders."""

    def __init__(self, over: Sequence[float], under: Sequence[float]) -> None:
        """Take what each block adds to the upper and to the lower total."""
        self._over, self._under = over, under

    def quotient(self, weights: Weights | None = None) -> float | None:
        """Return upper by lower; None: nothing to divide by."""
        times = weights or [1] * len(self._over)
        under = sum(value * n for value, n in zip(self._under, times, strict=True))
        return sum(value * n for value, n in zip(self._over, times, strict=True)) / under if under else None


def interval(before: Figure, after: Figure, blocks: int) -> tuple[float, float] | None:
    """Return the 99 % interval of after / before - 1.

    Returns:
        None where there are too few blocks, or too often nothing to divide by.
    """
    if blocks < BLOCKS_LEAST:
        return None
    draw = random.Random(_SEED)  # no secret
    ratios = []
    for _ in range(RESAMPLES):
        weights = [0] * blocks
        for _ in range(blocks):
            weights[draw.randrange(blocks)] += 1
        one, other = before(weights), after(weights)
        if one and other is not None:
            ratios.append(other / one - 1)
    if len(ratios) < RESAMPLES * (1 - _LOST_MOST):
        return None
    ratios.sort()
    cut = math.floor(_tail(blocks) * len(ratios))
    return ratios[cut], ratios[len(ratios) - 1 - cut]


def _tail(blocks: int) -> float:
    """Return the share of draws to leave out on each side, smaller for few blocks.

    Student's t is expanded around the normal quantile (Abramowitz and Stegun, Handbook of Mathematical Functions, 1964,
    26.7.5; within 2 % from eight blocks on).
    """
    z, freedom = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), blocks - 1
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return NormalDist().cdf(-math.sqrt(blocks / freedom) * t)
