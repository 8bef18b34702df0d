"""How much others want this thread's core: the share of the time in which it was ready to run and had to wait.

Linux counts that for each thread (``run_delay`` in ``schedstat`` of proc(5)). A scheduler is fair, so where nobody made
this thread wait, nobody waits for it either, and what it leaves of its core is left to no one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final

_SPAN_S: Final = 0.2  # what is longer ago than this counts little
_PAUSE_S: Final = 2.0  # nobody asked for so long


def run_delay_ns() -> Callable[[], int] | None:
    """Return what reads for how long the calling thread has waited for a core so far; None: nobody counts it here."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        end = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

        def read() -> int:
            return int(os.pread(end, 64, 0).split()[1])

        read()
        return read
    return None


class Crowd:
    """Looks at one thread's waiting, every time it is asked."""

    def __init__(self, delay_ns: Callable[[], int] | None = None, now_s: Callable[[], float] = time.monotonic) -> None:
        """``delay_ns``: where the thread's waiting is read; None: of the thread that asks first."""
        self._delay_ns, self._now_s = delay_ns, now_s
        self._before_ns, self._looked_s = 0, 0.0
        self._share = 1.0
        self._begun = False

    def share(self) -> float:
        """Return the share of the time lately that was spent waiting for the core; 1 where nobody counts it."""
        now_s = self._now_s()
        if not self._begun:
            self._begun, self._delay_ns = True, self._delay_ns or run_delay_ns()
            self._looked_s, self._before_ns = now_s, self._delay_ns() if self._delay_ns else 0
            return self._share
        elapsed_s = now_s - self._looked_s
        if self._delay_ns is None or elapsed_s <= 0:
            return self._share
        if elapsed_s > _PAUSE_S:  # what was long ago says nothing of now: begin again, as if others wanted it
            self._share, self._looked_s, self._before_ns = 1.0, now_s, self._delay_ns()
            return self._share
        delay_ns = self._delay_ns()
        seen = min(1.0, (delay_ns - self._before_ns) / 1e9 / elapsed_s)
        self._share += (seen - self._share) * min(1.0, elapsed_s / _SPAN_S)
        self._looked_s, self._before_ns = now_s, delay_ns
        return self._share
