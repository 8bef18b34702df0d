"""When the buyers come: pure arithmetic over an absolute plan that is never re-anchored.

An arrival is due at an instant fixed before the run. Whether the generator or the server was late for earlier
arrivals changes nothing for later ones: that is what makes the load open, and its latencies honest.
"""

from __future__ import annotations

from typing import Final, Protocol

RATE_MOST: Final = 100_000.0  # arrivals a second; far above what one process can send
ARRIVALS_MOST: Final = 10_000_000  # arrivals of one run
GRACE_US: Final = 1_000_000  # after the plan's last instant, late arrivals may still go out for this long


class Arrivals(Protocol):
    """An absolute plan of arrivals, numbered from 0."""

    @property
    def total(self) -> int:
        """Return how many arrivals the whole plan has."""

    def due_us(self, number: int) -> int:
        """Return when an arrival is due, in microseconds since the run's start."""

    def pace(self, elapsed_us: int, sent: int) -> tuple[int, bool]:
        """Return (how long to wait for the next arrival in µs, whether to stop) after ``sent`` arrivals."""


class Constant:
    """``rate`` arrivals a second, evenly spaced, for ``seconds``."""

    __slots__ = ("_end_us", "_step_us", "total")

    def __init__(self, rate: float, seconds: float) -> None:
        """Fix the plan.

        Raises:
            ValueError: the rate or the time is not positive or too large; the message says which.
        """
        if not 0 < rate <= RATE_MOST:
            raise ValueError(f"the rate must be above 0 and at most {RATE_MOST:.0f} a second, not {rate}")
        if not seconds > 0:
            raise ValueError(f"the time must be above 0 seconds, not {seconds}")
        if rate * seconds > ARRIVALS_MOST:
            raise ValueError(f"{rate * seconds:.0f} arrivals are more than one run holds ({ARRIVALS_MOST})")
        self.total: int = max(1, round(rate * seconds))
        self._step_us = 1_000_000 / rate
        self._end_us = int(seconds * 1_000_000) + GRACE_US

    def due_us(self, number: int) -> int:
        """Return when an arrival is due, in microseconds since the run's start."""
        return int(number * self._step_us)

    def pace(self, elapsed_us: int, sent: int) -> tuple[int, bool]:
        """Return (µs to wait for the next arrival, whether to stop).

        The wait is 0 for an arrival that is due or overdue. It stops after the last arrival, or when the
        generator is so late that the run is over: what is left then was due but never sent.
        """
        if sent >= self.total or elapsed_us > self._end_us:
            return 0, True
        return max(0, int(sent * self._step_us) - elapsed_us), False
