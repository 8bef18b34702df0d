"""The generator watching itself: its CPU four times a second, and every moment at which it stood still.

A tick of the loop's own timer comes every 10 ms, before all else that is ready. Between two ticks the loop may stand
still (a collection, a blocking call, a crowd of events in one turn, a stopped process, a machine that gave its time
to others), and whatever it was, the gap between the ticks is at least as long as it: a stall of 50 ms cannot be
missed, only one of 40 to 50 ms may be listed as one. The gap is what is listed, so a stall is never made shorter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import gevent

TICK_S: Final = 0.01
STALL_US: Final = 50_000
STALLS_MOST: Final = 1_000  # listed; one alone makes a run void
CPU_SAMPLE_S: Final = 0.25
_SAMPLES_MOST: Final = 100_000  # of CPU; seven hours


class Watch:
    """Ticks from ``start`` to ``stop``."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        """Take the run's clock."""
        self._now_us = now_us
        self._loop = gevent.get_hub().loop
        self._timer = self._loop.timer(TICK_S, TICK_S, priority=self._loop.MAXPRI)
        self._ticked_us = 0
        self._sampled_ns = self._cpu_ns = self._began_ns = self._began_cpu_ns = 0
        self.cpu = self.cpu_mean = 0.0  # share of one core: in the last sample, over all
        self.cpu_samples: list[tuple[int, float]] = []  # (instant in µs, share of one core)
        self.stalls: list[tuple[int, int]] = []  # (instant in µs, length in µs)

    @property
    def cpu_max(self) -> float:
        """The largest share of one core in any sample."""
        return max((share for _, share in self.cpu_samples), default=0.0)

    def start(self) -> None:
        """Begin."""
        self._ticked_us = self._now_us()
        self._began_ns = self._sampled_ns = time.monotonic_ns()
        self._began_cpu_ns = self._cpu_ns = time.process_time_ns()
        self._timer.start(self._tick, update=True)

    def stop(self) -> None:
        """End, with a last look."""
        self._timer.close()
        self._tick()
        self.cpu_mean = (time.process_time_ns() - self._began_cpu_ns) / max(1, time.monotonic_ns() - self._began_ns)

    def _tick(self) -> None:
        now_us = self._now_us()
        gap_us = now_us - self._ticked_us
        if gap_us >= STALL_US and len(self.stalls) < STALLS_MOST:
            self.stalls.append((self._ticked_us, gap_us))
        self._ticked_us = now_us
        now_ns = time.monotonic_ns()
        if now_ns - self._sampled_ns >= CPU_SAMPLE_S * 1e9 and len(self.cpu_samples) < _SAMPLES_MOST:
            cpu_ns = time.process_time_ns()
            self.cpu = (cpu_ns - self._cpu_ns) / (now_ns - self._sampled_ns)
            self.cpu_samples.append((now_us, round(self.cpu, 4)))
            self._sampled_ns, self._cpu_ns = now_ns, cpu_ns
