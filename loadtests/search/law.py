"""The universal scalability law, fitted by least squares: how throughput follows concurrency, and where it turns.
Pure.

    X(N) = λ N / (1 + σ (N − 1) + κ N (N − 1))

Source: N. J. Gunther, "A Simple Capacity Model of Massively Parallel Transaction Systems" (CMG 1993), and
"Guerrilla Capacity Planning" (Springer 2007). λ is the throughput of one request at a time, σ the share that is
serialised (contention), κ the cost of agreeing (coherency): with κ > 0 throughput falls beyond N* = √((1 − σ) /
κ).

The load here is open, so N is not set but follows: by Little's law (J. D. C. Little, Operations Research 9, 1961)
the mean number of requests in the system is their summed latency divided by the window. N / X is then linear in
1/λ, σ/λ and κ/λ, and is fitted in relative errors with neither share below zero. The interval is the middle 90 %
of a bootstrap over the points (B. Efron, Annals of Statistics 7, 1979), drawn from a fixed seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import combinations
from typing import Final

import msgspec

POINTS_LEAST: Final = 6
RATES_LEAST: Final = 4  # different values of N, at least a fifth apart
SPAN_LEAST: Final = 4.0  # the largest N over the smallest
DRAWS: Final = 200
COVERED: Final = 0.90


class Point(msgspec.Struct, frozen=True):
    """One trial: mean requests in the system, and answers a second."""

    concurrency: float
    throughput: float


class Law(msgspec.Struct, frozen=True, kw_only=True):
    """One universal scalability law."""

    lambda_per_s: float
    sigma: float
    kappa: float

    def throughput(self, concurrency: float) -> float:
        """Return X(N), requests a second."""
        n = concurrency
        return self.lambda_per_s * n / (1 + self.sigma * (n - 1) + self.kappa * n * (n - 1))

    @property
    def peak(self) -> tuple[float, float] | None:
        """Return (N*, X(N*)) where throughput is greatest; None when the law has no peak."""
        if self.kappa <= 0 or self.sigma >= 1:
            return None
        concurrency = math.sqrt((1 - self.sigma) / self.kappa)
        return concurrency, self.throughput(concurrency)


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted law and how far to believe it."""

    law: Law
    residual: float  # root mean square of the relative errors of X
    intervals: dict[str, tuple[float, float]]  # lambda_per_s, sigma, kappa: the middle 90 % of the bootstrap
    points: int


def fit(points: Sequence[Point], seed: int = 1) -> Fit | str:
    """Return the law that fits best, or one sentence why there is none.

    Args:
        points: trials at different loads; those without throughput or concurrency are left out.
        seed: of the bootstrap.
    """
    usable = [point for point in points if point.concurrency > 0 and point.throughput > 0]
    if why := _too_few(usable):
        return why
    law = _least_squares(usable)
    if law is None:
        return "No law was fitted: the points do not determine one."
    draw = random.Random(seed)  # a bootstrap, no secret
    drawn = [one for _ in range(DRAWS) if (one := _least_squares(draw.choices(usable, k=len(usable)))) is not None]
    errors = [law.throughput(point.concurrency) / point.throughput - 1 for point in usable]
    return Fit(
        law=law,
        residual=math.sqrt(sum(error * error for error in errors) / len(errors)),
        intervals={name: _middle([getattr(one, name) for one in drawn]) for name in law.__struct_fields__},
        points=len(usable),
    )


def _too_few(points: Sequence[Point]) -> str:
    loads = sorted(point.concurrency for point in points)
    apart = 0
    last = 0.0
    for load in loads:
        if load >= last * 1.2:
            apart, last = apart + 1, load
    if len(points) < POINTS_LEAST or apart < RATES_LEAST:
        return (
            f"No law was fitted: {len(points)} trials at {apart} clearly different loads; "
            f"it takes {POINTS_LEAST} at {RATES_LEAST}."
        )
    if loads[-1] < SPAN_LEAST * loads[0]:
        return (
            f"No law was fitted: the loads reach from {loads[0]:.3g} to {loads[-1]:.3g} requests at once; "
            f"it takes {SPAN_LEAST:g} times as many at the highest as at the lowest."
        )
    return ""


def _least_squares(points: Sequence[Point]) -> Law | None:
    """Return the law of the least squared relative errors of N/X = a + b (N−1) + c N (N−1), with a > 0, b, c ≥ 0.

    Three coefficients: every choice of those that are zero is solved, and the best that is allowed is taken, which
    is what an active-set method would find.
    """
    rows, ones = [], [1.0] * len(points)
    for point in points:
        n, weight = point.concurrency, point.throughput / point.concurrency
        rows.append((weight, weight * (n - 1), weight * n * (n - 1)))
    best: tuple[float, tuple[float, float, float]] | None = None
    for count in (3, 2, 1):
        for free in combinations(range(3), count):
            if 0 not in free:
                continue
            solved = _solve([[row[column] for column in free] for row in rows], ones)
            if solved is None or min(solved) < 0 or solved[0] <= 0:
                continue
            whole = [0.0, 0.0, 0.0]
            for column, value in zip(free, solved, strict=True):
                whole[column] = value
            a, b, c = whole
            error = sum((row[0] * a + row[1] * b + row[2] * c - 1) ** 2 for row in rows)
            if best is None or error < best[0]:
                best = (error, (a, b, c))
    if best is None:
        return None
    a, b, c = best[1]
    return Law(lambda_per_s=1 / a, sigma=b / a, kappa=c / a)


def _solve(rows: Sequence[Sequence[float]], wanted: Sequence[float]) -> list[float] | None:
    """Return the least-squares solution by Householder reflections, or None if the columns depend on each other."""
    width = len(rows[0])
    matrix = [[*row, value] for row, value in zip(rows, wanted, strict=True)]
    for column in range(width):
        norm = math.sqrt(sum(row[column] ** 2 for row in matrix[column:]))
        scale = math.sqrt(sum(row[column] ** 2 for row in matrix))
        if norm <= 1e-12 * max(scale, 1e-300):
            return None
        alpha = -math.copysign(norm, matrix[column][column])
        mirror = [row[column] for row in matrix[column:]]
        mirror[0] -= alpha
        length = sum(value * value for value in mirror)
        for other in range(column, width + 1):
            dot = 2 * sum(v * row[other] for v, row in zip(mirror, matrix[column:], strict=True)) / length
            for value, row in zip(mirror, matrix[column:], strict=True):
                row[other] -= dot * value
    solved = [0.0] * width
    for column in reversed(range(width)):
        rest = sum(matrix[column][other] * solved[other] for other in range(column + 1, width))
        solved[column] = (matrix[column][width] - rest) / matrix[column][column]
    return solved


def _middle(values: Sequence[float]) -> tuple[float, float]:
    ordered, beyond = sorted(values), (1 - COVERED) / 2
    last = len(ordered) - 1
    return (ordered[math.floor(beyond * last)], ordered[math.ceil((1 - beyond) * last)]) if ordered else (0.0, math.inf)
