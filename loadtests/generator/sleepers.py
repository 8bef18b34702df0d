"""Greenlets that sleep until an instant of the plan, woken by the alarm that sends the arrivals.

A buyer who pays in two seconds is as much a matter of the plan as one who arrives then, and must be as punctual:
``gevent.sleep`` makes a libev timer, and that is late by up to a millisecond and more, for epoll waits in whole ones.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

import gevent

NEVER_US: Final = 2**62
WAKE_MOST: Final = 32  # woken at once; then replies are read, and arrivals sent, before the others


class Sleepers:
    """Who sleeps until when, on the run's clock."""

    __slots__ = ("_heap", "_hub", "_now_us", "_number", "_over", "sooner")

    def __init__(self, now_us: Callable[[], int]) -> None:
        """Begin with nobody; ``now_us``: the run's clock, µs since its start."""
        self._now_us, self._hub = now_us, gevent.get_hub()
        self._heap: list[list[Any]] = []  # [when, which of those of one instant comes first, who]
        self._number = count()
        self._over = False
        self.sooner: Callable[[int], None] = _nothing  # told when somebody must wake before everyone else

    def sleep_us(self, pause_us: int) -> None:
        """Let others run for so long. Only in a greenlet that may be cut off.

        Raises:
            gevent.GreenletExit: the run is over.
        """
        if self._over:
            raise gevent.GreenletExit
        entry = [self._now_us() + pause_us, next(self._number), gevent.getcurrent()]
        heappush(self._heap, entry)
        if self._heap[0] is entry:
            self.sooner(entry[0])
        try:
            self._hub.switch()
        except BaseException:
            entry[2] = None  # cut off: it must not be woken from another wait
            raise

    def wake(self, now_us: int) -> int:
        """Wake who is due, at most ``WAKE_MOST``, and return the instant of the next. In the hub: they run in here."""
        heap, left = self._heap, WAKE_MOST
        while heap and heap[0][0] <= now_us and left:
            sleeper = heappop(heap)[2]
            if sleeper is not None:
                sleeper.switch()
                left -= 1
        return heap[0][0] if heap else NEVER_US

    def close(self) -> None:
        """Wake nobody any more, and let nobody sleep."""
        self._over = True
        self._heap.clear()


def _nothing(_at_us: int) -> None:
    """Tell nobody: the run has not begun."""
