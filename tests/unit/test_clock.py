"""Time: read in one place, written and read again without losing a millisecond."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import SystemClock, iso8601, parse_iso8601

INSTANTS_MS = st.integers(min_value=0, max_value=7_258_118_400_000)  # 1970 to 2200; floats lose milliseconds after 2242


@given(INSTANTS_MS)
def test_an_instant_written_and_read_again_is_the_same(at_ms: int) -> None:
    """Stops: a pay_by that the buyer reads a millisecond earlier than the shop keeps it."""
    assert parse_iso8601(iso8601(at_ms)) == at_ms


@given(INSTANTS_MS, INSTANTS_MS)
def test_written_instants_sort_as_the_instants_do(one_ms: int, other_ms: int) -> None:
    """Stops: milliseconds left out where they are zero, which puts 00.5 before 00 in every sorted list."""
    assert (iso8601(one_ms) < iso8601(other_ms)) == (one_ms < other_ms)


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
        (1_794_355_200_000, "2026-11-11T00:00:00.000Z"),
    ],
)
def test_an_instant_is_written_in_utc_with_milliseconds(at_ms: int, text: str) -> None:
    """Stops: the server's own time zone in an answer."""
    assert iso8601(at_ms) == text


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-11T00:00:00Z",
        "2026-11-11T08:00:00+08:00",
        "2026-11-11T08:00+08:00",
        "2026-11-10T19:00:00.000-05:00",
        "2026-11-11T00:00:00.0004Z",
    ],
)
def test_one_instant_in_any_zone_is_one_number(text: str) -> None:
    """Stops: a sale that opens eight hours late because the offset was dropped."""
    assert parse_iso8601(text) == 1_794_355_200_000


@pytest.mark.parametrize("text", ["2026-11-11", "2026-11-11T00:00:00", "2026-11-11 00:00:00.000"])
def test_an_instant_without_a_zone_is_refused_with_an_example(text: str) -> None:
    """Stops: midnight that means one instant on the laptop and another on the server."""
    with pytest.raises(ValueError, match=r"names no time zone; write e\.g\. 2026-11-11T00:00:00\+08:00"):
        parse_iso8601(text)


@pytest.mark.parametrize(
    "text", ["", "now", "1794355200000", "2026-02-30T00:00:00Z", "2026-11-11T00:00:61Z", "11.11.2026"]
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    """Stops: a guess at what the 11th of which month was meant."""
    with pytest.raises(ValueError, match=r"."):
        parse_iso8601(text)


def test_the_systems_clock_is_the_systems_in_whole_milliseconds() -> None:
    """Stops: seconds taken for milliseconds, a float that drifts, or local time for UTC."""
    before = time.time_ns() // 1_000_000
    now_ms = SystemClock().now_ms()
    after = time.time_ns() // 1_000_000
    assert isinstance(now_ms, int)
    assert before <= now_ms <= after


def test_the_monotonic_clock_counts_seconds_and_is_not_the_wall_clock() -> None:
    """Stops: durations measured on a clock that an NTP step moves."""
    before = time.monotonic()
    now_s = SystemClock().monotonic_s()
    assert before <= now_s <= time.monotonic()
