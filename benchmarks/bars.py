"""Bars: what a ratio of a run must reach, whether it does, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec

_HEAD: Final = "median (least to greatest) of the rounds"


class Ratio(msgspec.Struct, frozen=True):
    """A ratio inside each round, or another figure that machines may be compared by, against its bar."""

    name: str
    value: float  # median over the rounds
    least: float
    greatest: float
    bar: float
    at_most: bool
    met: bool


def ratio(name: str, values: Sequence[float], bar: float, *, at_most: bool = False) -> Ratio:
    """Return the verdict on what the rounds showed; the bar itself meets the bar."""
    value = median(values)
    met = value <= bar if at_most else value >= bar
    return Ratio(name, value, min(values), max(values), bar, at_most, met)


def spread(values: Sequence[float]) -> float:
    """Return (greatest - least) / median: how far the rounds lie apart."""
    middle = median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def lines(ratios: Sequence[Ratio]) -> list[str]:
    """Return the ratios as a table for a terminal."""
    width = max([36, *(len(one.name) for one in ratios)])
    told = [f"  {'ratio':<{width}} {_HEAD:<40}  bar"]
    for one in ratios:
        said = f"{short(one.value)} ({short(one.least)} to {short(one.greatest)})"
        sign, word = ("≤" if one.at_most else "≥"), ("met" if one.met else "MISSED")
        told.append(f"  {one.name:<{width}} {said:<40}  {sign} {one.bar:<5g} {word}")
    return told


def short(value: float) -> str:
    """Return a number with as many digits as one reads: 15,012 but 0.0123; below 1 enough to tell 0.797 from 0.8."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}" if size >= 0.1 or not size else f"{value:.4f}"
