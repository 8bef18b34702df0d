"""When to send the answers of those who were refused for overload, so that saying no never stops the selling.

A refusal costs a fourth to a third of an order, nearly all of it in the kernel. A worker that answers all it refuses at
once spends itself on that: in the simulation of tests/unit/test_limit.py it sells 40 % of its capacity behind 3,000
connections, and 2 % behind 10,000. So whoever is refused is refused at once, before any work, but is told when the loop
has time, and then at a measured pace:

- The loop has time and nobody else wants its core (``core/web/crowd.py``): all are told, every 2 ms. So it is where the
  store, on a core or a machine of its own, is what sells no more.
- The loop has time, but what it leaves of its core is what the store next to it needs: a tenth of the core.
- The loop has none: one for every four orders that are placed, the longest waiting first; a tenth of the core too, on a
  fast machine or a slow one. Where nobody else wants the core at least as many as a loop that has time tells a store to
  please: behind a slow store there are few orders to count by, and the loop is late because of the flood alone.

A client that was not answered asks nothing more on its connection, and that is what bounds the flood. If all who ask k
times what can be sold are told, at a cost of r orders each, no more than (1 - k r) / (1 - r) of it is sold: with r of a
fourth nothing at all from four times on. No order of telling them helps against that.

What it costs: behind more connections than are answered within 50 ms, the refused wait longer than that. After
``REQUEST_DEADLINE_S`` they are told in any case, for a client that hears nothing sends again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from core.settings import REFUSED_AN_ORDER, REFUSED_PER_S_LEAST, REQUEST_DEADLINE_S
from core.web.crowd import Crowd

Told = TypeVar("Told")
_TURN_S: Final = 0.002
_LATE_S: Final = 0.002  # a timer that comes later than this came to a busy loop
_IDLE_TURN: Final = 25  # told in a turn of a loop that has time: a tenth of the core, for the store may want it too
# Nobody wants it: all that the rest of a turn holds, for the loop is late where it is too many.
_ALONE_TURN: Final = 150
_CROWDED: Final = 0.2  # beside a store that sells all it can a worker waits for a third of the time and more


def may_be_told(late_s: float, elapsed_s: float, orders: int, waited: float = 1.0) -> int:
    """Return how many may be told now.

    Args:
        late_s: how much later than asked this turn's timer came.
        elapsed_s: since the last turn.
        orders: sent to the store since the last turn.
        waited: share of the time for which this worker was ready to run and its core was with others.
    """
    paced = 1 + int(orders * REFUSED_AN_ORDER + elapsed_s * REFUSED_PER_S_LEAST)
    alone = waited < _CROWDED
    if late_s >= _LATE_S:
        return max(paced, _IDLE_TURN) if alone else paced
    return max(paced, _ALONE_TURN if alone else _IDLE_TURN)


class Refusing(Generic[Told]):
    """Those who were refused and are not told yet."""

    def __init__(
        self,
        tell: Callable[[list[Told]], None],
        orders: Callable[[], int],
        now_s: Callable[[], float] = time.monotonic,
        gone: Callable[[Told], bool] = lambda told: False,
    ) -> None:
        """``tell`` sends the answers; ``orders`` counts the orders sent so far; who is ``gone`` is passed over."""
        self._tell, self._orders, self._now_s, self._gone = tell, orders, now_s, gone
        self._crowd = Crowd()
        self._orders_before = 0
        self._waiting: deque[tuple[float, Told]] = deque()
        self._due_s = self._turned_s = 0.0

    def add(self, refused: Iterable[Told]) -> None:
        """Tell these in their turn, within a few milliseconds if the loop has time."""
        now_s = self._now_s()
        if not self._waiting:
            self._turned_s, self._orders_before = now_s, self._orders()
            self._set_timer(now_s)
        self._waiting.extend([(now_s, one) for one in refused])

    def _set_timer(self, now_s: float) -> None:
        self._due_s = now_s + _TURN_S
        asyncio.get_running_loop().call_later(_TURN_S, self._turn)

    def _turn(self) -> None:
        now_s, waiting = self._now_s(), self._waiting
        orders = self._orders()
        elapsed_s = now_s - self._turned_s
        most = may_be_told(now_s - self._due_s, elapsed_s, orders - self._orders_before, self._crowd.share())
        self._turned_s, self._orders_before = now_s, orders
        told: list[Told] = []
        while waiting and (len(told) < most or now_s - waiting[0][0] > REQUEST_DEADLINE_S):
            refused = waiting.popleft()[1]
            if not self._gone(refused):
                told.append(refused)
        if waiting:
            self._set_timer(now_s)
        self._tell(told)
