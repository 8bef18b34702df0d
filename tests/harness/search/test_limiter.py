"""The limiter: each kind of evidence names its own cause, and no evidence names none."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.search.limiter import Sizes, Usage, name_limiter

SIZES = Sizes(cores=8, workers=2, budget_ms=100)
QUIET = {"server": 0.4, "valkey": 0.2, "postgres": 0.3, "worker": 0.2, "generator": 0.4}
GAUGES = {"loop_lag_us": 500.0, "batch_ms": 1.5, "fsync_share": 0.2, "pool_wait_ms": 0.1, "others_cores": 0.3}


def usages(cpu: dict[str, float] | None = None, gauges: dict[str, float] | None = None) -> list[Usage]:
    """Three loads; at the highest, which breaks the budget, ``cpu`` and ``gauges`` are what they are said to be."""
    low = [
        Usage(rate=rate, kept=True, cpu={role: share * rate / 4_000 for role, share in QUIET.items()}, gauges=GAUGES)
        for rate in (1_000, 2_000)
    ]
    high = Usage(rate=4_000, kept=False, cpu=QUIET | (cpu or {}), gauges=GAUGES | (gauges or {}))
    return [*low, high]


@pytest.mark.parametrize(
    ("cpu", "gauges", "name"),
    [
        ({"generator": 0.9}, {}, "generator"),
        ({"valkey": 0.95}, {}, "valkey"),
        ({"server": 1.9}, {}, "server"),
        ({"worker": 0.97}, {}, "worker"),
        ({"server": 1.8}, {"others_cores": 4.9}, "machine"),
        ({}, {"pool_wait_ms": 70.0}, "pool"),
        ({}, {"batch_ms": 40.0}, "store"),
        ({}, {"batch_ms": 40.0, "fsync_share": 0.9}, "fsync"),
        ({}, {"loop_lag_us": 80_000.0}, "loop"),
        ({"valkey": 0.95}, {"batch_ms": 60.0, "loop_lag_us": 70_000.0}, "valkey"),
        ({}, {}, "unknown"),
    ],
)
def test_each_kind_of_evidence_names_its_own_limiter(
    cpu: dict[str, float], gauges: dict[str, float], name: str
) -> None:
    """A cause that is used up goes before the waits it makes."""
    assert name_limiter(usages(cpu, gauges), 2_000, SIZES).name == name


def test_the_sentences_carry_the_figures_and_what_to_do() -> None:
    """A name without evidence is an opinion."""
    said = name_limiter(usages({"server": 1.9}), 2_000, SIZES).sentences
    assert "95%" in said[0]
    assert "2,000/s" in said[0]
    assert "--workers" in said[1]
    full = name_limiter(usages({"server": 1.8}, {"others_cores": 4.9}), 2_000, SIZES).sentences
    assert "server 1.80, generator 0.40" in full[1]
    assert "4.90 cores went to none of them" in full[2]
    own = usages({"server": 1.8, "postgres": 3.2, "valkey": 0.7, "worker": 0.8}, {"others_cores": 0.1})
    assert "move the load generator away" in name_limiter(own, 2_000, SIZES).sentences[2]


def test_what_twice_the_rate_would_need_is_a_straight_line_through_what_was_kept() -> None:
    """0.06 of a core at rest and 0.0003 a sale: twice 2,000/s would need 1.26 of Valkey's one thread."""
    trials = [Usage(rate=rate, kept=True, cpu={"valkey": 0.06 + 0.0003 * rate}) for rate in (500, 1_000, 1_500, 2_000)]
    limiter = name_limiter(trials, 2_000, SIZES)
    assert limiter.name == "valkey"
    valkey: Any = next(one for one in limiter.resources if one.name == "valkey")
    assert valkey.double == pytest.approx(1.26)
    assert valkey.now == valkey.kept == pytest.approx(0.66)


def test_what_was_not_measured_is_said_and_not_guessed() -> None:
    """A gauge that is missing is no proof of health."""
    limiter = name_limiter([Usage(rate=100, kept=True, cpu={"valkey": 0.1})], 100, SIZES)
    assert limiter.name == "unknown"
    assert "not measured: generator, fsync, server, worker, pool, store, loop" in limiter.sentences[0]
