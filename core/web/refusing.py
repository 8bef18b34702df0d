"""When to send the answers of those who were refused for overload, so that saying no never stops the selling.

A refusal costs a fourth to a third of an order, nearly all of it in the kernel. A worker that answers all it refuses at
once spends itself on that: at ten times its capacity it would sell nothing. So whoever is refused is refused at once,
before any work, but is told when the loop has time; while it has none, ``REFUSED_PER_S`` are told, the longest waiting
first. A client that was not answered asks nothing more on its connection, and that is what bounds the flood.

What it costs: with more clients than are answered in 50 ms the refused wait longer than that; after
``REQUEST_DEADLINE_S`` they are told in any case, for a client that hears nothing sends again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from core.settings import REFUSED_PER_S, REQUEST_DEADLINE_S

Told = TypeVar("Told")
_TURN_S: Final = 0.002
_LATE_S: Final = 0.002  # a timer that comes later than this came to a busy loop
_IDLE_TURN: Final = 200  # told in one turn of a loop that has time: about 1 ms of work
_ELAPSED_MOST_S: Final = 0.05


def may_be_told(elapsed_s: float, late_s: float) -> int:
    """Return how many may be told now: so long after the last turn, by a timer that came so late."""
    if late_s < _LATE_S:
        return _IDLE_TURN
    return 1 + int(min(elapsed_s, _ELAPSED_MOST_S) * REFUSED_PER_S)


class Refusing(Generic[Told]):
    """Those who were refused and are not told yet."""

    def __init__(self, tell: Callable[[Told], None], now_s: Callable[[], float] = time.monotonic) -> None:
        """``tell`` sends the answer; it must not raise."""
        self._tell, self._now_s = tell, now_s
        self._waiting: deque[tuple[float, Told]] = deque()
        self._due_s = self._turned_s = 0.0

    def add(self, refused: Told) -> None:
        """Tell this one in its turn, within a few milliseconds if the loop has time."""
        now_s = self._now_s()
        if not self._waiting:
            self._turned_s = now_s
            self._set_timer(now_s)
        self._waiting.append((now_s, refused))

    def _set_timer(self, now_s: float) -> None:
        self._due_s = now_s + _TURN_S
        asyncio.get_running_loop().call_later(_TURN_S, self._turn)

    def _turn(self) -> None:
        now_s, waiting = self._now_s(), self._waiting
        most = may_be_told(now_s - self._turned_s, now_s - self._due_s)
        self._turned_s = now_s
        while waiting and (most > 0 or now_s - waiting[0][0] > REQUEST_DEADLINE_S):
            most -= 1
            self._tell(waiting.popleft()[1])
        if waiting:
            self._set_timer(now_s)
