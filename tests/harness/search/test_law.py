"""The universal scalability law and the knee: known curves are found again, and nothing is made of too little."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.search.knee import knee
from loadtests.search.law import Fit, Law, Point, fit

LOADS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@settings(max_examples=20)
@given(lam=st.floats(10, 10_000), sigma=st.floats(0, 0.5), kappa=st.floats(0, 0.01))
def test_a_law_without_noise_is_found_again(lam: float, sigma: float, kappa: float) -> None:
    """What was put in comes out, also when contention or coherency is nothing at all."""
    law = Law(lambda_per_s=lam, sigma=sigma, kappa=kappa)
    found = fit([Point(n, law.throughput(n)) for n in LOADS])
    assert isinstance(found, Fit)
    assert found.law.lambda_per_s == pytest.approx(lam, rel=1e-6)
    assert found.law.sigma == pytest.approx(sigma, rel=1e-5, abs=1e-7)
    assert found.law.kappa == pytest.approx(kappa, rel=1e-5, abs=1e-8)
    assert found.residual < 1e-6


def test_under_noise_the_interval_holds_the_truth_and_the_residual_is_the_noise() -> None:
    """3 % of noise on every point: the interval of a tenth either way must mostly hold what is true."""
    law, inside = Law(lambda_per_s=1_000, sigma=0.05, kappa=0.0005), 0
    for seed in range(12):
        draw = random.Random(seed)
        points = [Point(n, law.throughput(n) * (1 + draw.gauss(0, 0.03))) for n in LOADS for _ in range(3)]
        found = fit(points)
        assert isinstance(found, Fit)
        low, high = found.intervals["sigma"]
        inside += low <= 0.05 <= high
        assert found.law.sigma == pytest.approx(0.05, abs=0.03)
        assert 0.015 < found.residual < 0.05
    assert inside >= 8


def test_the_peak_is_where_throughput_is_greatest() -> None:
    """Beyond it more load sells less; a law without coherency cost has no peak."""
    law = Law(lambda_per_s=1_000, sigma=0.05, kappa=0.001)
    assert law.peak is not None
    at, most = law.peak
    assert all(law.throughput(at + step) < most for step in (-5, -1, 1, 5))
    assert Law(lambda_per_s=1_000, sigma=0.05, kappa=0).peak is None


@pytest.mark.parametrize(
    ("loads", "says"),
    [((1, 2, 4), "3 trials"), ((2, 2, 2, 2, 2, 2, 2), "at 1 clearly"), ((1, 1.3, 1.7, 2.2, 2.8, 3.5), "from 1 to 3.5")],
)
def test_too_few_or_too_close_points_give_a_reason_and_no_law(loads: tuple[float, ...], says: str) -> None:
    """A curve through three points fits anything."""
    found = fit([Point(n, n * 100) for n in loads])
    assert isinstance(found, str)
    assert says in found


@given(corner=st.integers(2, 8), slope=st.floats(20, 400))
def test_the_knee_is_the_corner_of_a_hockey_stick(corner: int, slope: float) -> None:
    """Flat up to the corner, steep after it."""
    curve = [(100.0 * n, 5.0 + max(0, n - corner) * slope) for n in range(1, 11)]
    assert knee(curve) == pytest.approx(100.0 * corner)


def test_a_flat_curve_and_a_straight_one_have_no_knee() -> None:
    """A knee that is not there is not drawn; neither is one of three points."""
    assert knee([(100.0 * n, 5.0 + n * 0.1) for n in range(1, 11)]) is None
    assert knee([(100.0 * n, 10.0 * n) for n in range(1, 11)]) is None
    assert knee([(100, 1), (200, 1), (300, 50)]) is None
