"""The lane's orders: those that came in one turn of the loop are read, named and put on their batch's list together.

The hot path of the shop. What an order costs here is Python, and Python costs by the call: so an order passes few
functions (``data_received`` and ``come``; ``recall``, ``read`` and ``order_id``; ``set_result``, ``of`` and
``answered``) where each step as one of its own made twenty, and all else is done once a turn of the loop (is there
room), once a batch (what its answers share), or in C.

Always true: an order is answered once, or its client has gone; who finds no room is refused before anything is decoded;
what is not plainly right is aiohttp's to refuse, for it can say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from core.errors import Overloaded
from core.sale.orders.answers import PlaceAnswer
from core.sale.orders.place import Placing, Words, sku_at_first_sight
from core.sale.orders.store import PlaceItem
from core.telemetry import PLACES, REFUSALS, log
from core.web.plain import Answers
from core.web.refusing import Refusing
from core.web.ticket import Ticket

_NO_ITEM: Final = PlaceItem(b"", "", ("", "", 0))
_SAID_MOST: Final = 64  # answers remembered; a batch has a few, and one for each order that is replayed


class Order(Ticket, eq=False):
    """An order under way."""

    orders: Orders
    key: str  # its idempotency key
    body: bytes
    item: PlaceItem = _NO_ITEM

    def set_result(self, answer: PlaceAnswer, /) -> None:
        """Answer, unless the client has gone."""
        connection = self.connection
        if connection is None:
            return
        try:
            said = self.orders.said.get(id(answer))
            if said is None or said.answer is not answer:
                said = self.orders.say(self.item, answer)
            raw = said.whole or said.words.of(self.item.order_id)
        except Exception as error:  # noqa: BLE001  # a sink must not raise
            self.set_exception(error)
            return
        PLACES.counts[said.outcome] += 1
        self.connection = None
        self.lane.under_way -= 1
        connection.answered(raw, b"")

    def set_exception(self, error: Exception, /) -> None:
        """Answer with what went wrong."""
        if isinstance(error, Overloaded):  # it has waited too long
            error = Overloaded(again_s=self.orders.placing.come_again_s(1)[0])
        super().set_exception(error)


class _Said(NamedTuple):
    """An answer of the script as bytes of HTTP: whole, or ``words`` for each order."""

    answer: PlaceAnswer
    outcome: str
    whole: bytes
    words: Words


class Orders:
    """The orders of one worker's lane."""

    def __init__(self, placing: Placing, answers: Answers) -> None:
        self.placing, self._answers = placing, answers
        self._refusing: Refusing[Order] = Refusing(self._tell, placing.called, gone=Order.done)
        self.said: dict[int, _Said] = {}  # by the answer's identity: the orders of a batch share the very object

    def read(self, came: Sequence[Order]) -> None:
        """Read orders that came together, and put on their list those that must be decided."""
        placing = self.placing
        read, refuses, remembered, room = placing.read, placing.refuses, placing.remembered, placing.room()
        items: list[PlaceItem] = []
        sinks: list[Order] = []
        away: list[Order] = []
        hopeless: dict[bytes, bool] = {}  # by SKU: the same until one more is let in
        for order in came:
            crowded = len(items) >= room
            if crowded:
                if items:  # whether a SKU has little under way is asked with all counted
                    placing.put_all(items, sinks)
                    items, sinks, room = [], [], 0
                sku = sku_at_first_sight(order.body)
                if sku not in hopeless:
                    hopeless[sku] = placing.is_hopeless(sku)
                if hopeless[sku]:  # before anything is decoded
                    away.append(order)
                    continue
            item = read(order.body, order.key)
            if item is None:
                order.finish(None)
                continue
            if item.kind[0] in remembered and (refusal := refuses(item)) is not None:
                PLACES.add(refusal.code)
                order.finish(self._answers.refused(refusal))
                continue
            order.item = item
            if crowded:
                try:
                    placing.put_for(item, order)
                    hopeless.clear()
                except Overloaded:
                    away.append(order)
                continue
            items.append(item)
            sinks.append(order)
        if items:
            placing.put_all(items, sinks)
        if away:
            REFUSALS.counts[Overloaded.code] += len(away)
            self._refusing.add(away)

    def _tell(self, refused: list[Order]) -> None:
        """Answer who found no room."""
        answer = self._answers.refused
        for order, again_s in zip(refused, self.placing.come_again_s(len(refused)), strict=True):
            connection, order.connection = order.connection, None
            if connection is None:
                continue
            order.lane.under_way -= 1
            try:
                connection.answered(answer(Overloaded, again_s), b"")
            except Exception as error:  # noqa: BLE001  # the others must hear theirs
                log("error", "answer_failed", error=error)
                connection.fail()

    def say(self, item: PlaceItem, answer: PlaceAnswer) -> _Said:
        """Return, and remember, what an answer is to the orders of a kind."""
        words = self.placing.words(item.kind, answer)
        if words.refusal is not None:
            said = _Said(answer, words.refusal.code, self._answers.refused(words.refusal), words)
        else:
            words.behind(partial(self._answers.head, 201 if words.is_new else 200))
            said = _Said(answer, "accepted" if words.is_new else "replayed", b"", words)
        if len(self.said) >= _SAID_MOST:
            self.said.clear()
        self.said[id(answer)] = said
        return said
