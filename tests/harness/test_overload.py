"""The judge of the flood: each bar can be missed, and bad usage is told before anything is started."""

from __future__ import annotations

import pytest

from loadtests.__main__ import main
from loadtests.trials.flood import Bucket, Told
from loadtests.trials.overload import bars_of

CALM = Bucket(accepted=500, accepted_p99_ms=10.0)


def phases(
    sold: int = 9_500, refused_ms: float = 20.0, after: list[Bucket] | None = None, others: int = 0
) -> list[Told]:
    """Return peak, calm, one flood of a second and what came after it."""
    flood = Told("flood 5x", seconds=1.0, accepted=sold, accepted_ms=[1, 2, 3], refused_ms=[1, refused_ms, 900])
    flood.others = {"500": others} if others else {}
    return [
        Told("peak", seconds=1.0, accepted_ms=[1, 2, 3]),
        Told("calm", seconds=1.0, accepted_ms=[1, 5, 9]),
        flood,
        Told("after 5x", seconds=8.0, buckets=after or [CALM] * 16),
    ]


def missed(told: list[Told]) -> list[str]:
    """Return the first words of the bars that a flood of five times a peak of 10,000 missed."""
    return [bar.name.split(" ")[0] for bar in bars_of(10_000.0, told, [5.0]) if not bar.met]


def test_a_good_flood_meets_every_bar() -> None:
    """Stops: a bar that cannot be met."""
    assert missed(phases()) == []
    assert missed(phases(after=[Bucket(refused=1), *[CALM] * 15])) == []


@pytest.mark.parametrize(
    ("told", "bar"),
    [
        (phases(sold=8_900), "goodput"),
        (phases(refused_ms=51.0), "refused"),
        (phases(after=[*[CALM] * 10, Bucket(accepted=500, refused=1), *[CALM] * 5]), "normal"),
        (phases(after=[*[CALM] * 10, Bucket(accepted=500, accepted_p99_ms=51.0), *[CALM] * 5]), "normal"),
        (phases(others=1), "answers"),
    ],
)
def test_each_bar_can_be_missed(told: list[Told], bar: str) -> None:
    """Stops: a judge that lets pass what it names."""
    assert missed(told) == [bar]


@pytest.mark.parametrize(
    "argv",
    [["--times", "5,x"], ["--times", "0.5"], ["--times", "1,2,3,4"], ["--seconds", "0"], ["--connections", "0"], ["x"]],
)
def test_bad_usage_is_told_at_once(argv: list[str]) -> None:
    """Stops: a mistyped figure that costs a minute, or is taken for another one."""
    assert main(["overload", *argv]) == 64
