"""Time, passed in: no rule of the shop asks the operating system what time it is. Loops and measurements do."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """What the code may ask about time."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970 (UTC)."""

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never steps back; only differences mean anything."""


class SystemClock:
    """The operating system's clocks."""

    def now_ms(self) -> int:
        """Return the wall clock in milliseconds since 1970 (UTC)."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never steps back."""
        return time.monotonic()


def iso8601(at_ms: int) -> str:
    """Return milliseconds since 1970 as ISO 8601 in UTC with milliseconds, e.g. 2026-11-11T00:00:00.000Z."""
    return f"{_to_the_second(at_ms // 1000)}.{at_ms % 1000:03d}Z"


@lru_cache(maxsize=1_024)  # what is asked for lies within some seconds; a datetime costs ten times the rest
def _to_the_second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()[:19]


def parse_iso8601(text: str) -> int:
    """Return an ISO 8601 instant as milliseconds since 1970.

    Raises:
        ValueError: the text is no ISO 8601 instant, or it names no time zone.
    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone; write e.g. 2026-11-11T00:00:00+08:00")
    return round(at.timestamp() * 1000)
