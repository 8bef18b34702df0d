"""No unit is sold that is not there: at every instant, the units held of a SKU are at most the units raised.

Evidence: the moves in the order of the journal, each with its effect on the stock by the law
(``STOCK_OF_MOVE``). The sum is kept per SKU and looked at after every single move, so an oversell that later
cancellations heal is still seen, and so is the opposite: more units given back than were held. The rows of
the orders say the same once more for the end, without the journal; a projector that loses moves cannot talk
its way out.

It stops check-then-take (six of eleven card shops read; Vendure #4930, Medusa #16502): two requests see one
last unit.

It cannot see a unit sold *before* its import was counted, because the journal's raises are known only as a
total; nor an order that neither store remembers (that is ``no_order_lost``).
"""

from __future__ import annotations

from loadtests.checkers.case import Case
from loadtests.checkers.journal import HOLDS, moves_with_order, units_taken
from loadtests.record.evidence import Evidence, Finding


def check(evidence: Evidence) -> Finding:
    """Return whether the units held were within the units raised at every prefix of the journal."""
    case = Case("no_oversell")
    raised = {product.sku: product.raised for product in evidence.postgres.products}
    held = dict.fromkeys(raised, 0)
    for event, order in moves_with_order(evidence.postgres.events, evidence.postgres.orders):
        case.checked += 1
        units = units_taken(event) * order.quantity
        if not units:
            continue
        now = held.get(order.sku, 0) + units
        held[order.sku] = now
        if units > 0 and now > raised.get(order.sku, 0):
            case.against(
                f"{order.sku}: {now} units held with {raised.get(order.sku, 0)} raised, "
                f"after order {order.id} became {event.after} "
                f"(entry {event.entry_ms}-{event.entry_seq}, record {event.record})."
            )
        elif now < 0:
            case.against(f"{order.sku}: {-now} units more given back than held, by order {order.id}.")
    at_end: dict[str, int] = {}
    for order in evidence.postgres.orders:
        if order.state in HOLDS:
            at_end[order.sku] = at_end.get(order.sku, 0) + order.quantity
    for sku, units in at_end.items():
        case.checked += 1
        if units > raised.get(sku, 0):
            case.against(f"{sku}: at the end orders hold {units} units of {raised.get(sku, 0)} raised.")
    return case.close()
