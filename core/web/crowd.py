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
# Until it has looked for so long it says 1, as if others wanted the core; a scheduler's turns are 3 ms. The first
# moment of a flood is when most are refused: while it took 0.35 s to be believed that nobody wants the core, a tenth of
# a flood of ten times waited for 100 ms and more.
_FIRST_S: Final = 0.02


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
        self._seen = 0.0  # share of the time; an average, for as long as _SPAN_S at most
        self._looked_for_s = 0.0
        self._begun = False

    def share(self) -> float:
        """Return the share of the time lately that was spent waiting for the core; 1 where nobody counts it."""
        now_s = self._now_s()
        if not self._begun:
            self._begun, self._delay_ns = True, self._delay_ns or run_delay_ns()
            self._looked_s, self._before_ns = now_s, self._delay_ns() if self._delay_ns else 0
            return 1.0
        elapsed_s = now_s - self._looked_s
        if self._delay_ns is not None and elapsed_s > 0:
            delay_ns = self._delay_ns()
            if elapsed_s > _PAUSE_S:  # what was long ago says nothing of now: begin again
                self._looked_for_s = 0.0
            else:
                self._looked_for_s += elapsed_s
                seen = min(1.0, (delay_ns - self._before_ns) / 1e9 / elapsed_s)
                self._seen += (seen - self._seen) * min(1.0, elapsed_s / min(_SPAN_S, self._looked_for_s))
            self._looked_s, self._before_ns = now_s, delay_ns
        return self._seen if self._looked_for_s >= _FIRST_S else 1.0
