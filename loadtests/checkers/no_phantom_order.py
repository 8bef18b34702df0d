"""No order comes from nowhere: each one was asked for, by this buyer, for this SKU and quantity.

Evidence: every order row against the place attempts. Either the history names it (an answer carried its id),
or some place of the same buyer, SKU and quantity stayed *unknown*: each such idempotency key may account for
one order, no more. A place that was only ever refused, shed or never sent accounts for none.

It stops orders made by a client library that repeats a call by itself (redis-py retries ten times by
default; one lost reply ran a decrement twice), and one buyer's order filed under another's name.

It cannot tell which of two like unknown requests an order came from; nor does it need to.
"""

from __future__ import annotations

from loadtests.checkers.answers import has_order, open_keys
from loadtests.checkers.case import Case
from loadtests.record.evidence import Evidence, Finding


def check(evidence: Evidence) -> Finding:
    """Return whether every order in PostgreSQL was asked for."""
    case = Case("no_phantom_order")
    asked = {a.order_id: a for a in evidence.attempts if has_order(a)}
    maybe = open_keys(evidence.attempts)
    seen: set[str] = set()
    for order in evidence.postgres.orders:
        case.checked += 1
        if order.id in seen:
            case.against(f"Order {order.id} is there twice.")
        seen.add(order.id)
        attempt = asked.get(order.id)
        if attempt is not None:
            if (attempt.buyer, attempt.sku, attempt.quantity) != (order.buyer, order.sku, order.quantity):
                case.against(
                    f"Order {order.id} is {order.quantity} of {order.sku} for {order.buyer}; the request was "
                    f"{attempt.quantity} of {attempt.sku} for {attempt.buyer}."
                )
            continue
        keys = maybe.get((order.buyer, order.sku, order.quantity))
        if keys:
            keys.pop()
        else:
            case.against(
                f"Order {order.id} ({order.quantity} of {order.sku} for {order.buyer}) comes from no request "
                "that was accepted or stayed unknown."
            )
    return case.close()
