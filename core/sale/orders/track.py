"""Track: where an order stands, and its card keys once they are its buyer's; with ``wait``, as soon as that changes.

A waiting buyer costs one dictionary entry and one timer. The projector publishes the ids of each batch it has
committed; a worker looks only at the ids someone here waits for, and reads all of those in one batch.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from core.clock import Clock, iso8601
from core.errors import Overloaded, StoreUnavailable, StoreUnknown, TokenExpired, UnknownOrder
from core.ids import Names
from core.sale.orders.answers import TrackAnswer
from core.sale.orders.order import SETTLED, State
from core.sale.orders.record import Records
from core.sale.orders.store import OrderStore
from core.settings import WAITERS_MOST
from core.telemetry import Secret

_SETTLED: Final = frozenset(state.value for state in SETTLED)
# What Valkey alone can say; anything beyond is for PostgreSQL, where delivery happens. Paid is among it: the projector
# settles an order here right after it has committed its delivery, and again if it died between.
_IN_VALKEY: Final = frozenset({State.RESERVED.value, State.EXPIRED.value, State.CANCELLED.value, State.PAID.value})


class TrackView(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of GET /v1/orders/{id}; ``keys`` only when delivered."""

    order_id: str
    state: str
    sku: str
    quantity: int
    amount: int
    currency: str
    pay_by: str
    keys: tuple[str, ...] = ()


class Waiters:
    """Who waits for which order on this worker."""

    def __init__(self) -> None:
        self._events: dict[bytes, set[asyncio.Future[None]]] = {}
        self.count = 0
        self.closing = False  # this worker is about to stop: nobody waits any longer

    def add(self, order_id: bytes) -> asyncio.Future[None]:
        """Return a future that is done when the order may have moved.

        Raises:
            Overloaded: too many wait already.
        """
        if self.count >= WAITERS_MOST:
            raise Overloaded("Too many buyers are waiting here; ask again without wait.")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._events.setdefault(order_id, set()).add(future)
        self.count += 1
        return future

    def remove(self, order_id: bytes, future: asyncio.Future[None]) -> None:
        """Forget one who waits."""
        waiting = self._events.get(order_id)
        if waiting is None or future not in waiting:
            return
        waiting.discard(future)
        self.count -= 1
        if not waiting:
            del self._events[order_id]

    def wake(self, joined_ids: bytes) -> None:
        """Wake who waits for one of these orders (16 bytes each, joined)."""
        for at in range(0, len(joined_ids), 16):
            for future in self._events.get(joined_ids[at : at + 16], ()):
                _end(future)

    def wake_all(self) -> None:
        """Wake everyone: messages may have been missed."""
        self.wake(b"".join(self._events))

    def close(self) -> None:
        """Let everyone who waits be answered now."""
        self.closing = True
        self.wake_all()


class Tracking:
    """The verb, with what it needs for every order."""

    def __init__(self, names: Names, store: OrderStore, records: Records, clock: Clock) -> None:
        self._names, self._store, self._records, self._clock = names, store, records, clock
        self.waiters = Waiters()

    def authorise(self, order_id: bytes | None, token: str) -> bytes:
        """Return the order id if the token is this order's.

        Raises:
            UnknownOrder: it is not (or the id is none): the same answer for a foreign and an unknown one.
            TokenExpired: it was.
        """
        expires_s = None if order_id is None else self._names.token_expiry(token, order_id)
        if order_id is None or expires_s is None:
            raise UnknownOrder
        if expires_s * 1000 < self._clock.now_ms():
            raise TokenExpired
        return order_id

    async def look(self, order_id: bytes) -> TrackView:
        """Return where an order stands now.

        Raises:
            UnknownOrder; StoreUnavailable, StoreUnknown: a store that must be asked did not answer.
        """
        live = await self._store.tracks.put(order_id)
        if isinstance(live, TrackAnswer) and live.state in _IN_VALKEY:
            return _view(order_id, live.state, live)
        try:
            record = await self._records.find(order_id)
        except (StoreUnavailable, StoreUnknown) as error:
            raise StoreUnavailable("The record of delivered orders cannot be read just now; ask again.") from error
        if record is not None and (not isinstance(live, TrackAnswer) or record.state not in _IN_VALKEY):
            return _view(order_id, record.state, record, record.keys)
        if isinstance(live, TrackAnswer):
            return _view(order_id, live.state, live)
        raise UnknownOrder

    async def _look_in_record(self, order_id: bytes) -> TrackView:
        """Look once the projector has called: PostgreSQL has it committed, so Valkey need not be asked first."""
        record = await self._records.find(order_id)
        if record is None or record.state in _IN_VALKEY:
            return await self.look(order_id)
        return _view(order_id, record.state, record, record.keys)

    async def wait(self, order_id: bytes, seconds: float) -> TrackView:
        """Return where an order stands once that differs from now, or is settled, or ``seconds`` are over.

        The waiter is set before the first look, so that no move falls between.

        Raises:
            as ``look``; Overloaded: too many wait here.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        future = self.waiters.add(order_id)
        try:
            first = view = await self.look(order_id)
            while view.state == first.state and view.state not in _SETTLED and not self.waiters.closing:
                timer = loop.call_at(until, _end, future)
                try:
                    await future
                finally:
                    timer.cancel()
                if loop.time() >= until:
                    break
                self.waiters.remove(order_id, future)
                future = self.waiters.add(order_id)
                view = await self._look_in_record(order_id)
            return view
        finally:
            self.waiters.remove(order_id, future)


def _end(future: asyncio.Future[None]) -> None:
    """Let a waiter go: it was called, or its time is over."""
    if not future.done():
        future.set_result(None)


def _view(order_id: bytes, state: str, order: object, keys: tuple[Secret, ...] = ()) -> TrackView:
    return TrackView(
        order_id=order_id.hex(),
        state=state,
        sku=order.sku,  # type: ignore[attr-defined]  # TrackAnswer and OrderRecord share these fields
        quantity=order.quantity,  # type: ignore[attr-defined]
        amount=order.amount,  # type: ignore[attr-defined]
        currency=order.currency,  # type: ignore[attr-defined]
        pay_by=iso8601(order.pay_by_ms),  # type: ignore[attr-defined]
        keys=tuple([key.reveal() for key in keys]) if state == State.DELIVERED else (),
    )
