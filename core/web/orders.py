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
from core.sale.orders.place import Placing, Words
from core.sale.orders.store import PlaceItem
from core.telemetry import PLACES, REFUSALS
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

    def tell(self) -> None:
        """Answer one that found no room."""
        self.finish(self.lane.answers.refused(Overloaded))


class _Said(NamedTuple):
    """An answer of the script as bytes of HTTP: whole, or ``words`` for each order."""

    answer: PlaceAnswer
    outcome: str
    whole: bytes
    words: Words


class Orders:
    """The orders of one worker's lane."""

    def __init__(self, placing: Placing, answers: Answers) -> None:
        self._placing, self._answers = placing, answers
        self._refusing: Refusing[Order] = Refusing(Order.tell, placing.called, gone=Order.done)
        self.said: dict[int, _Said] = {}  # by the answer's identity: the orders of a batch share the very object

    def read(self, came: Sequence[Order]) -> None:
        """Read orders that came together, and put on their list those that must be decided."""
        placing = self._placing
        read, refuses, room = placing.read, placing.refuses, placing.room()
        items: list[PlaceItem] = []
        sinks: list[Order] = []
        for order in came:
            crowded = len(items) >= room
            if crowded:
                if items:  # whether a SKU has little under way is asked with all counted
                    placing.put_all(items, sinks)
                    items, sinks, room = [], [], 0
                if placing.is_hopeless(order.body):  # before anything is decoded
                    self._turn_away(order)
                    continue
            item = read(order.body, order.key)
            if item is None:
                order.finish(None)
                continue
            refusal = refuses(item)
            if refusal is not None:
                PLACES.add(refusal.code)
                order.finish(self._answers.refused(refusal))
                continue
            order.item = item
            if crowded:
                try:
                    placing.put_for(item, order)
                except Overloaded:
                    self._turn_away(order)
                continue
            items.append(item)
            sinks.append(order)
        if items:
            placing.put_all(items, sinks)

    def _turn_away(self, order: Order) -> None:
        REFUSALS.add(Overloaded.code)
        self._refusing.add(order)

    def say(self, item: PlaceItem, answer: PlaceAnswer) -> _Said:
        """Return, and remember, what an answer is to the orders of a kind."""
        words = self._placing.words(item.kind, answer)
        if words.refusal is not None:
            said = _Said(answer, words.refusal.code, self._answers.refused(words.refusal), words)
        else:
            words.behind(partial(self._answers.head, 201 if words.is_new else 200))
            said = _Said(answer, "accepted" if words.is_new else "replayed", b"", words)
        if len(self.said) >= _SAID_MOST:
            self.said.clear()
        self.said[id(answer)] = said
        return said
