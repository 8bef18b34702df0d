"""Every order lived by the law: from nothing, by moves of the table only, to the state its row says.

Evidence: each order's moves in the order of the journal. The first begins at nothing, each begins where the
one before ended, each is in ``MOVES``; the row's state is where the last move ended. An order without moves,
or moves without an order, are each an error.

It stops delivery of an expired order, revival of a refunded one, a row changed by hand or by a second writer
beside the journal, an entry projected twice, and one left out.

It cannot see a move that is legal and should not have happened; the other checkers weigh each kind of move
against its cause.
"""

from __future__ import annotations

from core.sale.orders.order import LEGAL
from loadtests.checkers.case import Case
from loadtests.checkers.journal import moves_by_order
from loadtests.record.evidence import EventRow, Evidence, Finding

_LEGAL: frozenset[tuple[str | None, str]] = frozenset((before, after) for before, after in LEGAL)


def check(evidence: Evidence) -> Finding:
    """Return whether every order's moves form a legal path that ends in its state."""
    case = Case("legal_moves")
    moves = moves_by_order(evidence.postgres.events)
    for order in evidence.postgres.orders:
        path = moves.pop(order.id, [])
        if not path:
            case.checked += 1
            case.against(f"Order {order.id} is {order.state} and has no moves.")
            continue
        case.checked += len(path)
        _path(case, path)
        if path[-1].after != order.state:
            case.against(f"Order {order.id} is {order.state}, but its last move ended in {path[-1].after}.")
        if path[0].at_ms != order.placed_ms:
            case.against(
                f"Order {order.id} was placed at {order.placed_ms} by its row and at {path[0].at_ms} by its first move."
            )
    for id_, path in moves.items():
        case.checked += len(path)
        case.against(f"{len(path)} moves belong to order {id_}, which has no row.")
    return case.close()


def _path(case: Case, path: list[EventRow]) -> None:
    at: str | None = None
    for move in path:
        if move.before != at:
            case.against(
                f"Order {move.order_id} stood in {at or 'nothing'}, "
                f"but its next move began in {move.before or 'nothing'} and ended in {move.after}."
            )
        if (move.before, move.after) not in _LEGAL:
            case.against(
                f"Order {move.order_id} went from {move.before or 'nothing'} to {move.after}, which no law allows."
            )
        at = move.after
