"""Orders first: what no order waits for is done while none is under way.

Behind an order a worker rests for a millisecond or two, until the next comes. What aiohttp answers, who is let in with
such a request and who is cut off fits into that rest. Done as it came, it stood in an order's way twice, as the order
came and as its answer came back, and an order's way leads through processes that share the machine's cores with this
one. Nothing waits for ever: where orders leave no rest, what has waited for ``PATIENCE_S`` has a share of each turn.
What a work sets going (a task of aiohttp's) may run in the turns behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from core.telemetry import log
from core.web.share import Share

PATIENCE_S: Final = 0.01
_CLOCK_S: Final = 0.0005  # half of what the loop's clock and timers can tell apart

Work = Callable[[], object]


class UnderWay(Protocol):
    """Where the orders under way are known: see ``core/backends/batches.py``."""

    when_rested: Callable[[], None]  # called when the last of them was answered

    @property
    def is_under_way(self) -> bool:
        """Whether any is."""


class Leisure:
    """Work that waits for a moment without orders, in the order in which it came. One a worker."""

    def __init__(self, orders: UnderWay | None = None, share: Share | None = None) -> None:
        """``orders``: None if there never are any; ``share``: how much of a turn of the loop the work may have."""
        self._orders, self._share = orders, share or Share()
        self._works: deque[tuple[float, Work]] = deque()  # and until when it waits at most
        self._next: asyncio.Handle | None = None
        if orders is not None:
            orders.when_rested = self._rested

    def do(self, work: Work) -> bool:
        """Do something at once if no order is under way and nothing else waits; else when its time comes.

        Return whether it was done.
        """
        if self._works or self._is_busy():
            loop = asyncio.get_running_loop()
            self._works.append((loop.time() + PATIENCE_S, work))
            if self._next is None:
                self._come_again(loop)
            return False
        _do(work)
        return True

    def finish(self) -> None:
        """Do all that waits, now."""
        while self._works:
            _do(self._works.popleft()[1])

    def _is_busy(self) -> bool:
        return self._orders is not None and self._orders.is_under_way

    def _rested(self) -> None:
        if self._works:
            assert self._next is not None, "somebody comes as long as something waits"
            self._next.cancel()
            self._next = asyncio.get_running_loop().call_soon(self._go)

    def _go(self) -> None:
        """Do what may be done, as far as the turn's share goes: orders that came meanwhile are seen between turns."""
        self._next = None
        loop, works, share = asyncio.get_running_loop(), self._works, self._share
        due_s = loop.time() + _CLOCK_S
        share.begin()
        while works and (works[0][0] <= due_s or not self._is_busy()):
            _do(works.popleft()[1])
            if share.is_over():
                break
        if works and self._next is None:  # else one of them has brought more, and somebody comes
            self._come_again(loop)

    def _come_again(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that somebody looks at what waits: now, or when the first of it has waited for long."""
        rest_s = self._works[0][0] - loop.time() if self._is_busy() else 0
        if rest_s > _CLOCK_S:
            self._next = loop.call_later(rest_s, self._go)
        else:
            self._share.leave_off()  # only here: until the next turn, and not a rest, is what the share is a part of
            self._next = loop.call_soon(self._go)


def _do(work: Work) -> None:
    try:
        work()
    except Exception as error:  # noqa: BLE001  # what waits behind it must be done
        log("error", "work_failed", error=error)
