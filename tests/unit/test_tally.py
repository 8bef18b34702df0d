"""Tallies: counting in a dictionary loses nothing and counts nothing twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from core import telemetry
from core.telemetry import Distributions, Tally, Waits, flush_tallies

LABELS = ("accepted", "replayed", "sold_out")


class Counted:
    """A tally on a counter of its own, and what Prometheus would read of it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(telemetry, "_tallies", [])  # a test's tally is none of the process's
        self.registry = CollectorRegistry()
        self.tally = Tally(Counter("orders", "Orders, by outcome", ["outcome"], registry=self.registry))

    def read(self, label: str) -> float:
        return self.registry.get_sample_value("orders_total", {"outcome": label}) or 0.0


@given(st.lists(st.sampled_from([*LABELS, None]), max_size=60))
def test_whenever_it_is_flushed_prometheus_reads_exactly_what_was_counted(steps: list[str | None]) -> None:
    """Stops: a count lost at a flush, or brought over again by the next one."""
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(patch)
        for step in steps:
            if step is None:
                counted.tally.flush()
            else:
                counted.tally.add(step)
        counted.tally.flush()
        counted.tally.flush()
        assert {label: counted.read(label) for label in LABELS} == {label: steps.count(label) for label in LABELS}


def test_one_call_flushes_every_tally_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a metric that stands at zero because nobody thought of its tally."""
    counted = Counted(monkeypatch)
    other = Tally(Counter("pays", "Callbacks, by outcome", ["outcome"], registry=counted.registry))
    counted.tally.add("accepted")
    other.add("paid")
    assert counted.read("accepted") == 0
    flush_tallies()
    assert counted.read("accepted") == 1
    assert counted.registry.get_sample_value("pays_total", {"outcome": "paid"}) == 1


def test_waits_are_brought_over_once_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a mean wait that grows because a total was added twice."""
    monkeypatch.setattr(telemetry, "_tallies", [])
    registry = CollectorRegistry()
    waits = Waits(Counter("wait_seconds", "s", registry=registry), Counter("waits", "n", registry=registry))
    waits.add(0.25)
    waits.add(0.5)
    flush_tallies()
    flush_tallies()
    assert registry.get_sample_value("wait_seconds_total") == 0.75
    assert registry.get_sample_value("waits_total") == 2


@given(st.lists(st.one_of(st.none(), st.floats(0, 12), st.sampled_from([1.0, 5.0, 10.0]), st.integers(0, 12))))
def test_a_distribution_says_what_prometheus_own_histogram_says_of_the_same_values(steps: list[float | None]) -> None:
    """Stops: a value at a bucket's very bound in the next one, one lost or brought over twice, a sum of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(telemetry, "_tallies", [])
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        kept = Distributions(Histogram("sizes", "n", ["lane"], buckets=(1, 5, 10), registry=ours))
        own = Histogram("sizes", "n", ["lane"], buckets=(1, 5, 10), registry=theirs)
        place, place_own = kept.labels("place"), own.labels("place")
        for step in [*steps, None, None]:
            if step is None:
                flush_tallies()
            else:
                place.add(step)
                place_own.observe(step)
        for name, bound in [("count", None), ("sum", None), *(("bucket", le) for le in ("1.0", "5.0", "10.0", "+Inf"))]:
            sought = f"sizes_{name}", {"lane": "place"} | ({"le": bound} if bound else {})
            assert ours.get_sample_value(*sought) == pytest.approx(theirs.get_sample_value(*sought))


def test_the_tallies_of_the_shop_are_all_flushed() -> None:
    """Stops: a tally made without being registered."""
    mine = [value for value in vars(telemetry).values() if isinstance(value, Distributions | Tally | Waits)]
    assert len(mine) >= 7
    assert set(mine) <= set(telemetry._tallies)
