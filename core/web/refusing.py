"""When to send the answers of those who were refused for overload, so that saying no never stops the selling.

A refusal costs a fourth to a third of an order, nearly all of it in the kernel. A worker that answers all it refuses at
once spends itself on that: in the simulation of tests/unit/test_limit.py it sells 40 % of its capacity behind 3,000
connections, and 2 % behind 10,000. So whoever is refused is refused at once, before any work, but is told when the loop
has time, and then at a measured pace: what a worker leaves of its core may be what the store next to it needs. While it
has none, one is told for every four orders that are placed, the longest waiting first. Either is a tenth of a core, the
second on a fast machine or a slow one. A client that was not answered asks nothing more on its connection, and that is
what bounds the flood.

What it costs: behind more connections than are answered within 50 ms, the refused wait longer than that. After
``REQUEST_DEADLINE_S`` they are told in any case, for a client that hears nothing sends again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from core.settings import REFUSED_AN_ORDER, REFUSED_PER_S_LEAST, REQUEST_DEADLINE_S

Told = TypeVar("Told")
_TURN_S: Final = 0.002
_LATE_S: Final = 0.002  # a timer that comes later than this came to a busy loop
_IDLE_TURN: Final = 25  # told in a turn of a loop that has time: a tenth of the core, for the store may want it too


def may_be_told(late_s: float, elapsed_s: float, orders: int) -> int:
    """Return how many may be told now.

    Args:
        late_s: how much later than asked this turn's timer came.
        elapsed_s: since the last turn.
        orders: sent to the store since the last turn.
    """
    paced = 1 + int(orders * REFUSED_AN_ORDER + elapsed_s * REFUSED_PER_S_LEAST)
    return max(paced, _IDLE_TURN) if late_s < _LATE_S else paced


class Refusing(Generic[Told]):
    """Those who were refused and are not told yet."""

    def __init__(
        self, tell: Callable[[Told], None], orders: Callable[[], int], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """``tell`` sends the answer and must not raise; ``orders`` says how many orders were sent so far."""
        self._tell, self._orders, self._now_s = tell, orders, now_s
        self._orders_before = 0
        self._waiting: deque[tuple[float, Told]] = deque()
        self._due_s = self._turned_s = 0.0

    def add(self, refused: Told) -> None:
        """Tell this one in its turn, within a few milliseconds if the loop has time."""
        now_s = self._now_s()
        if not self._waiting:
            self._turned_s, self._orders_before = now_s, self._orders()
            self._set_timer(now_s)
        self._waiting.append((now_s, refused))

    def _set_timer(self, now_s: float) -> None:
        self._due_s = now_s + _TURN_S
        asyncio.get_running_loop().call_later(_TURN_S, self._turn)

    def _turn(self) -> None:
        now_s, waiting = self._now_s(), self._waiting
        orders = self._orders()
        most = may_be_told(now_s - self._due_s, now_s - self._turned_s, orders - self._orders_before)
        self._turned_s, self._orders_before = now_s, orders
        while waiting and (most > 0 or now_s - waiting[0][0] > REQUEST_DEADLINE_S):
            most -= 1
            self._tell(waiting.popleft()[1])
        if waiting:
            self._set_timer(now_s)
