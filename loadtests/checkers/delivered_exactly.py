"""A paid order gets exactly what was bought, once; an unpaid one gets nothing; the buyer sees what the store
holds.

Evidence: deliveries, order rows, moves, payments, and the keys buyers saw. An order that is delivered has
exactly the lines 1 to ``quantity``, each with a key of its own SKU; one that never became ``delivered`` has
none. Before the move to ``delivered`` there is a move to ``paid``, and a payment that was applied. Whatever
keys a buyer was shown are the store's keys of that order, all of them. An order still ``paid`` when all is
quiet was charged without a cure.

It stops the second delivery after a repeated notice (dujiaoka #97, #95, #328; card-system #287; kamiFaka
doubled 36 of 146), the order that is paid and gets no key (acg-faka #913, #940), and keys shown before their
commit, which a crash would then give to somebody else.

It cannot see how long a key was shown before its commit if the commit came in the end; the clocks of buyers
and store are not the same.
"""

from __future__ import annotations

from loadtests.checkers.case import Case
from loadtests.checkers.journal import moves_by_order
from loadtests.record.evidence import DeliveryRow, Evidence, Finding, OrderRow
from loadtests.record.history import Attempt


def check(evidence: Evidence) -> Finding:
    """Return whether every order got exactly its keys, after it was paid."""
    case = Case("delivered_exactly")
    given: dict[str, list[DeliveryRow]] = {}
    for delivery in evidence.postgres.deliveries:
        given.setdefault(delivery.order_id, []).append(delivery)
    applied = {p.order_id for p in evidence.postgres.payments if p.applied in ("first", "late")}
    moves = {id_: [m.after for m in of] for id_, of in moves_by_order(evidence.postgres.events).items()}
    orders = {order.id: order for order in evidence.postgres.orders}
    for order in orders.values():
        case.checked += 1
        _order(case, order, given.get(order.id, []), moves.get(order.id, []), order.id in applied)
    for id_ in given.keys() - orders.keys():
        case.against(f"{len(given[id_])} keys are delivered to order {id_}, which does not exist.")
    for attempt in evidence.attempts:
        if attempt.op == "track" and attempt.result == "ok" and (attempt.keys or attempt.outcome == "delivered"):
            case.checked += 1
            _seen(case, attempt, given.get(attempt.order_id, []), orders.get(attempt.order_id))
    return case.close()


def _order(case: Case, order: OrderRow, given: list[DeliveryRow], moves: list[str], applied: bool) -> None:
    if order.state == "paid":
        case.against(f"Order {order.id} is paid, all is quiet, and its keys were never delivered.")
    if order.state != "delivered" and "delivered" not in moves:
        if given:
            case.against(f"Order {order.id} is {order.state} and has {len(given)} keys delivered.")
        return
    lines = sorted(delivery.line for delivery in given)
    if lines != list(range(1, order.quantity + 1)):
        case.against(f"Order {order.id} bought {order.quantity} and has lines {lines[:10]} delivered.")
    for delivery in given:
        if delivery.key_sku != order.sku:
            case.against(f"Order {order.id} bought {order.sku} and got a key of {delivery.key_sku}.")
    if not applied:
        case.against(f"Order {order.id} is delivered without a payment applied to it.")
    if "delivered" not in moves or "paid" not in moves or moves.index("paid") > moves.index("delivered"):
        case.against(f"Order {order.id} is delivered, but its moves {moves[:10]} do not say paid, then delivered.")


def _seen(case: Case, attempt: Attempt, given: list[DeliveryRow], order: OrderRow | None) -> None:
    if attempt.keys and attempt.outcome != "delivered":
        case.against(f"Order {attempt.order_id} was shown its keys while it was {attempt.outcome or 'in no state'}.")
    stored = sorted(delivery.key_hash for delivery in given)
    if sorted(attempt.keys) != stored:
        case.against(
            f"Order {attempt.order_id}: the buyer saw {len(attempt.keys)} keys, the store has {len(stored)}, "
            "and they are not the same."
        )
    elif order is not None and len(attempt.keys) != order.quantity:
        case.against(f"Order {attempt.order_id} bought {order.quantity} and was shown {len(attempt.keys)} keys.")
