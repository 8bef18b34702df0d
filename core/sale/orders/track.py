"""Track: where an order stands, and its card keys once they are its buyer's; with ``wait``, as soon as that changes.

The projector publishes the ids of each batch it has committed; a worker looks only at the ids someone here waits for,
and reads all of those in one batch.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from core.backends.batches import Sink
from core.clock import Clock, iso8601
from core.errors import Overloaded, StoreUnavailable, StoreUnknown, TokenExpired, UnknownOrder
from core.ids import Names
from core.sale.delivery.vault import VaultLocked
from core.sale.orders.answers import TrackAnswer
from core.sale.orders.order import SETTLED, State
from core.sale.orders.record import OrderRecord, Records
from core.sale.orders.store import OrderStore
from core.sale.orders.waiters import Waiters
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
        return await self.wait(order_id, 0.0)

    async def wait(self, order_id: bytes, seconds: float) -> TrackView:
        """Return where an order stands once that differs from now, or is settled, or ``seconds`` are over.

        Raises:
            as ``look``; Overloaded: too many wait here.
        """
        future: asyncio.Future[TrackView] = asyncio.get_running_loop().create_future()
        question = self.ask(order_id, seconds, future)
        try:
            return await future
        finally:
            question.drop()

    def ask(self, order_id: bytes, seconds: float, sink: Sink) -> Question:
        """Do as ``wait``, but let the view or the error go to ``sink``; ``drop`` the question if nobody wants it.

        Raises:
            Overloaded: too many wait or ask here.
        """
        return Question(self._store, self._records, self.waiters, order_id, seconds, sink)


class Question:
    """One buyer's question on its way: Valkey first, PostgreSQL where only that can say, waiting where that is asked.

    It is a sink of both stores' batches and calls no coroutine: waiting costs an entry among the waiters and one timer.
    The waiter is set before the first look, so that no move falls between.
    """

    __slots__ = (
        "_first",
        "_last",
        "_live",
        "_looking",
        "_moved",
        "_order_id",
        "_over",
        "_records",
        "_sink",
        "_store",
        "_timer",
        "_waiters",
    )

    def __init__(
        self,
        store: OrderStore,
        records: Records,
        waiters: Waiters | None,
        order_id: bytes,
        seconds: float,
        sink: Sink,
    ) -> None:
        """Begin to ask."""
        self._store, self._records, self._order_id, self._sink = store, records, order_id, sink
        self._waiters = waiters if seconds > 0 else None
        self._live: TrackAnswer | bool | None = None  # what Valkey said in this look; None: it was not asked
        self._last: TrackView | None = None
        self._first = ""  # the state of the first look
        self._looking, self._moved, self._over = "valkey", False, seconds <= 0
        self._timer: asyncio.TimerHandle | None = None
        if self._waiters is not None:
            self._waiters.add(order_id, self)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._time_is_over)
        try:
            store.tracks.put_for(order_id, self)
        except Overloaded:
            self.drop()
            raise

    def drop(self) -> None:
        """Want no answer any more, and leave nothing behind."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiters is not None:
            self._waiters.remove(self._order_id, self)
            self._waiters = None

    def wake(self) -> None:
        """Look again: the order may have moved, or the worker stops."""
        if self._looking:
            self._moved = True  # the look under way may have come too early
        elif self._is_closing():
            self._answer()
        else:
            self._look_again()

    # --- as a sink of the stores' batches -------------------------------------------------------------------

    def done(self) -> bool:
        """Say whether nobody wants the answer any more."""
        return self._sink.done()

    def set_result(self, answer: Any, /) -> None:
        """Take what a store says; nothing more is asked for a buyer who has gone."""
        if self._sink.done():
            return
        try:
            if self._looking == "valkey":
                self._take_live(answer)
            else:
                self._take_record(answer)
        except Exception as error:  # noqa: BLE001  # a sink must not raise
            self.set_exception(error)

    def set_exception(self, error: Exception, /) -> None:
        """Take that a store did not say."""
        if self._looking == "record" and isinstance(error, StoreUnavailable | StoreUnknown):
            error = StoreUnavailable("The record of delivered orders cannot be read just now; ask again.")
        self.drop()
        if not self._sink.done():
            self._sink.set_exception(error)

    # --- one look -------------------------------------------------------------------------------------------

    def _look(self, where: str) -> None:
        self._looking = where
        try:
            if where == "record":
                self._records.find_for(self._order_id, self)
            else:
                self._store.tracks.put_for(self._order_id, self)
        except Overloaded as error:
            self.set_exception(error)

    def _take_live(self, answer: TrackAnswer | bool) -> None:
        if isinstance(answer, TrackAnswer) and answer.state in _IN_VALKEY:
            self._found(_view(self._order_id, answer.state, answer))
        else:
            self._live = answer
            self._look("record")

    def _take_record(self, record: OrderRecord | VaultLocked | None) -> None:
        live = self._live
        if isinstance(record, VaultLocked):
            raise record
        if record is not None and (live is False or record.state not in _IN_VALKEY):
            self._found(_view(self._order_id, record.state, record, record.keys))
        elif live is None:
            self._look("valkey")
        elif isinstance(live, TrackAnswer):
            self._found(_view(self._order_id, live.state, live))
        else:
            raise UnknownOrder

    def _found(self, view: TrackView) -> None:
        self._looking = ""
        if self._last is None:
            self._first = view.state
        self._last = view
        if self._over or view.state != self._first or view.state in _SETTLED or self._is_closing():
            self._answer()
        elif self._moved:
            self._look_again()

    def _look_again(self) -> None:
        """Look where a move shows first: the projector calls after its commit, so Valkey need not be asked before."""
        self._moved, self._live = False, None
        self._look("record")

    def _is_closing(self) -> bool:
        return self._waiters is not None and self._waiters.closing

    def _time_is_over(self) -> None:
        self._over = True
        if not self._looking:
            self._answer()

    def _answer(self) -> None:
        view = self._last
        self.drop()
        if not self._sink.done():
            self._sink.set_result(view)


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
