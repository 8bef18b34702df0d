"""No buyer ever holds more of a product than its limit, and Valkey counts what PostgreSQL knows.

Evidence: the moves in the order of the journal, summed per buyer and SKU and compared with the product's
limit after every single move; at the end Valkey's ``bought`` count of every buyer against the units of the
orders that hold, both ways.

It stops check-then-take on the limit (two requests of one buyer at one instant, a late payment that slips
past it), and the count that is not given back, which shuts an honest buyer out: one cart must not freeze the
shop (dujiao-next #105, dujiaoka #76).

It cannot see one person behind two buyer names; that is the risk rules' work. It takes the limit as it is at
the end of the run.
"""

from __future__ import annotations

from loadtests.checkers.case import Case
from loadtests.checkers.journal import HOLDS, moves_with_order, units_taken
from loadtests.record.evidence import Evidence, Finding


def check(evidence: Evidence) -> Finding:
    """Return whether every buyer stayed within the limit at every prefix, and is counted right."""
    case = Case("buyer_limit")
    limit = {product.sku: product.buyer_limit for product in evidence.postgres.products}
    held: dict[tuple[str, str], int] = {}
    for event, order in moves_with_order(evidence.postgres.events, evidence.postgres.orders):
        case.checked += 1
        units = units_taken(event) * order.quantity
        if units:
            who = (order.sku, order.buyer)
            now = held.get(who, 0) + units
            held[who] = now
            if units > 0 and now > limit.get(order.sku, 0):
                case.against(
                    f"Buyer {order.buyer} held {now} of {order.sku}, the limit is {limit.get(order.sku, 0)}, "
                    f"after order {order.id} became {event.after}."
                )
    _counts(case, evidence)
    return case.close()


def _counts(case: Case, evidence: Evidence) -> None:
    owned: dict[tuple[str, str], int] = {}
    for order in evidence.postgres.orders:
        if order.state in HOLDS:
            owned[order.sku, order.buyer] = owned.get((order.sku, order.buyer), 0) + order.quantity
    counted = {(sku, buyer): units for sku, buyers in evidence.valkey.bought.items() for buyer, units in buyers.items()}
    for who in owned.keys() | counted.keys():
        case.checked += 1
        if owned.get(who, 0) != counted.get(who, 0):
            case.against(
                f"Buyer {who[1]} is counted for {counted.get(who, 0)} of {who[0]} in Valkey, "
                f"PostgreSQL has orders holding {owned.get(who, 0)}."
            )
