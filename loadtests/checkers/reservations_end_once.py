"""Every reservation ends once: delivered, or given back. None ends twice, none is forgotten, none ends
early.

Evidence: each order's moves. A reservation begins with the move that takes units (placed, or paid late and
reserved again) and ends with the delivery or with the move that gives the units back. In between it is open;
an order may end the run with an open reservation only while it waits for a person, or while its time to pay
is not over yet by Valkey's own clock. Every reserved order in Valkey has an end in the expiry queue, and no
reservation expires before its time.

It stops stock held hostage by a lost timer (dujiao-next #105: one cart froze the shop for 15 minutes), the
unit given back twice by an expiry and a cancellation at the same instant, and the sweep that runs on a fast
clock and takes a buyer's last seconds.

It cannot see an expiry that came late and then came; how late they come is a latency, not an invariant.
"""

from __future__ import annotations

from typing import Final

from loadtests.checkers.case import Case
from loadtests.checkers.journal import moves_by_order, units_taken
from loadtests.record.evidence import EventRow, Evidence, Finding, OrderRow

LATE_MOST_MS: Final = 1_000  # unpaid stock comes back within a second of its time
_MAY_STAY_OPEN = frozenset({"reserved", "paid", "held", "in_review", "frozen"})


def check(evidence: Evidence) -> Finding:
    """Return whether every reservation ended exactly once, in its time."""
    case = Case("reservations_end_once")
    orders = {order.id: order for order in evidence.postgres.orders}
    for id_, path in moves_by_order(evidence.postgres.events).items():
        order = orders.get(id_)
        if order is not None:
            _reservations(case, order, path)
    for order in evidence.postgres.orders:
        over_ms = evidence.valkey.now_ms - order.pay_by_ms
        if order.state == "reserved" and over_ms > LATE_MOST_MS:
            case.against(f"Order {order.id} is still reserved {over_ms} ms after its time to pay was over.")
    reserved = sum(1 for order in evidence.valkey.live if order.state == "reserved")
    if evidence.valkey.due < reserved:
        case.against(f"{reserved} orders are reserved in Valkey, only {evidence.valkey.due} have an end in the queue.")
    return case.close()


def _reservations(case: Case, order: OrderRow, path: list[EventRow]) -> None:
    open_ = 0
    for move in path:
        taken = units_taken(move)
        if taken > 0:
            case.checked += 1
            open_ += 1
            if open_ > 1:
                case.against(f"Order {order.id} reserved its units twice (became {move.after} holding them already).")
        elif taken < 0 or move.after == "delivered":
            open_ -= 1
            if open_ < 0:
                case.against(f"Order {order.id} ended a reservation it did not have, becoming {move.after}.")
            if move.after == "expired" and move.at_ms < order.pay_by_ms:
                case.against(f"Order {order.id} expired {order.pay_by_ms - move.at_ms} ms before its time was over.")
    expected = 1 if order.state in _MAY_STAY_OPEN else 0
    if open_ != expected:
        case.against(f"Order {order.id} is {order.state} with {open_} open reservations; {expected} is right.")
