"""The journal as the checkers read it: the moves of all orders, in the order in which they took effect.

Valkey decides one script at a time, so the stream has one true order: (entry_ms, entry_seq) names the entry,
``record`` the place in it. PostgreSQL's ``seq`` is only the order of projection. A move made outside the
stream (the cure's delivery, later the office's decisions) carries no place; it is put right behind the last
move projected before it, which is the earliest instant it can have had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter, itemgetter
from typing import Final

from core.sale.orders.order import HOLDING, STOCK_OF_MOVE
from loadtests.record.evidence import EventRow, OrderRow

HOLDS: Final[frozenset[str]] = frozenset(state.value for state in HOLDING)
_UNITS_BACK: Final[dict[tuple[str | None, str], int]] = {
    (before, after): stock for (before, after), stock in STOCK_OF_MOVE.items()
}
_Place = tuple[int, int, int]


def in_order(events: Iterable[EventRow]) -> list[EventRow]:
    """Return the events in the order of the journal."""
    projected = sorted(events, key=attrgetter("seq"))
    if all(event.entry_ms is not None for event in projected):
        return sorted(projected, key=attrgetter("entry_ms", "entry_seq", "record"))
    placed: list[tuple[_Place, EventRow]] = []
    last = (0, 0, 0)
    for event in projected:
        here = last
        if event.entry_ms is not None:
            here = (event.entry_ms, event.entry_seq or 0, event.record or 0)
            last = max(last, here)
        placed.append((here, event))
    return [event for _, event in sorted(placed, key=itemgetter(0))]


def units_taken(event: EventRow) -> int:
    """Return how many units one move takes from the free stock, for each unit ordered: 1, 0 or -1.

    A move the law does not know is weighed by whether its two states hold units, so that breaking the law
    does not also hide an oversell.
    """
    back = _UNITS_BACK.get((event.before, event.after))
    if back is None:
        back = (event.before in HOLDS) - (event.after in HOLDS)
    return -back


def moves_with_order(events: Iterable[EventRow], orders: Iterable[OrderRow]) -> Iterator[tuple[EventRow, OrderRow]]:
    """Yield every move whose order is known, in the order of the journal, with its order."""
    by_id = {order.id: order for order in orders}
    for event in in_order(events):
        order = by_id.get(event.order_id)
        if order is not None:
            yield event, order


def moves_by_order(events: Iterable[EventRow]) -> dict[str, list[EventRow]]:
    """Return each order's moves, in the order of the journal."""
    found: dict[str, list[EventRow]] = {}
    for event in in_order(events):
        moves = found.get(event.order_id)
        if moves is None:
            found[event.order_id] = [event]
        else:
            moves.append(event)
    return found
