"""The run's clock."""

from __future__ import annotations

import time


class Clock:
    """The run's clock: µs since its start, monotonic, and where its zero lies on the wall clock."""

    __slots__ = ("_agreed", "_zero_ns", "started_unix_us")

    def __init__(self) -> None:
        """Start now."""
        self._agreed: tuple[int, int] | None = None
        self.restart()

    def agree(self, start_us: int, start_unix_us: int) -> None:
        """Take the zero all processes of a run share, here by the monotonic clock and by the master's wall clock."""
        self._agreed = start_us * 1000, start_unix_us

    def restart(self) -> None:
        """Make this instant the zero, or the one that was agreed upon, which may be still to come."""
        self._zero_ns, self.started_unix_us = self._agreed or (time.monotonic_ns(), time.time_ns() // 1000)

    def now_us(self) -> int:
        """Return microseconds since the start."""
        return (time.monotonic_ns() - self._zero_ns) // 1000
