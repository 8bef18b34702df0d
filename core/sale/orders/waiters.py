"""Who waits for which order on one worker: one dictionary entry each, no polling."""

from __future__ import annotations

from typing import Protocol

from core.errors import Overloaded
from core.settings import WAITERS_MOST


class Waiter(Protocol):
    """Someone who waits."""

    def wake(self) -> None:
        """Hear that the order may have moved."""


class Waiters:
    """Who waits for which order on this worker."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, set[Waiter]] = {}
        self.count = 0
        self.closing = False  # this worker is about to stop: nobody waits any longer

    def add(self, order_id: bytes, waiter: Waiter) -> None:
        """Have ``waiter`` woken whenever the order may have moved.

        Raises:
            Overloaded: too many wait already.
        """
        if self.count >= WAITERS_MOST:
            raise Overloaded("Too many buyers are waiting here; ask again without wait.")
        self._waiting.setdefault(order_id, set()).add(waiter)
        self.count += 1

    def remove(self, order_id: bytes, waiter: Waiter) -> None:
        """Forget one who waits."""
        waiting = self._waiting.get(order_id)
        if waiting is None or waiter not in waiting:
            return
        waiting.discard(waiter)
        self.count -= 1
        if not waiting:
            del self._waiting[order_id]

    def wake(self, joined_ids: bytes) -> None:
        """Wake who waits for one of these orders (16 bytes each, joined)."""
        for at in range(0, len(joined_ids), 16):
            for waiter in tuple(self._waiting.get(joined_ids[at : at + 16], ())):
                waiter.wake()

    def wake_all(self) -> None:
        """Wake everyone: messages may have been missed."""
        self.wake(b"".join(self._waiting))

    def close(self) -> None:
        """Let everyone who waits be answered now."""
        self.closing = True
        self.wake_all()
