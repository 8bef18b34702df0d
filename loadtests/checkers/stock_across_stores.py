"""When all is quiet, the two stores tell one story: the same units free, the same orders open, nothing on
the way.

Evidence: Valkey's free units against PostgreSQL's raised units less those held by orders and those voided on
the shelf; every order that is reserved or paid, on both sides and field by field; the number of journal
entries not yet projected, which must be none. For each SKU there must also be keys enough on the shelf for
everything still sellable or owed.

It stops the projector that forgets or repeats an entry, the restore of one store without the other, and the
sold-out flag that is never cleared while units lie free (miaosha #145).

It cannot see an error both stores share, for example an order that never reached the journal
(``no_order_lost``), and it speaks only of the end: a lag that was made up for is not an error.
"""

from __future__ import annotations

from loadtests.checkers.case import Case
from loadtests.checkers.journal import HOLDS
from loadtests.record.evidence import Evidence, Finding, LiveOrder, OrderRow

_OPEN = ("reserved", "paid")  # what Valkey keeps among the live; whatever comes after is PostgreSQL's alone
_FIELDS = ("state", "sku", "buyer", "quantity", "amount", "currency", "pay_by_ms")


def check(evidence: Evidence) -> Finding:
    """Return whether both stores agree on stock and on open orders, with nothing left to project."""
    case = Case("stock_across_stores")
    case.checked += 1
    if evidence.valkey.facts_left:
        case.against(f"{evidence.valkey.facts_left} journal entries were not projected when all should be quiet.")
    _units(case, evidence)
    _open_orders(case, evidence)
    return case.close()


def _units(case: Case, evidence: Evidence) -> None:
    held: dict[str, int] = {}
    owed: dict[str, int] = {}  # held, with the keys still on the shelf
    for order in evidence.postgres.orders:
        if order.state in HOLDS:
            held[order.sku] = held.get(order.sku, 0) + order.quantity
            if order.state != "delivered":
                owed[order.sku] = owed.get(order.sku, 0) + order.quantity
    voided_after: dict[str, int] = {}
    for delivery in evidence.postgres.deliveries:
        if delivery.key_state == "void":
            voided_after[delivery.key_sku] = voided_after.get(delivery.key_sku, 0) + 1
    for product in evidence.postgres.products:
        case.checked += 1
        sku = product.sku
        void = product.void - voided_after.get(sku, 0)
        free = evidence.valkey.free.get(sku, 0)
        expected = product.raised - void - held.get(sku, 0)
        if free != expected:
            case.against(
                f"{sku}: Valkey has {free} units free, PostgreSQL says {expected} "
                f"({product.raised} raised, {held.get(sku, 0)} held by orders, {void} voided)."
            )
        if free + owed.get(sku, 0) > product.free:
            case.against(
                f"{sku}: {free} units for sale and {owed.get(sku, 0)} owed, "
                f"but only {product.free} keys lie on the shelf."
            )
    known = {product.sku for product in evidence.postgres.products}
    for sku in evidence.valkey.free.keys() - known:
        case.against(f"{sku}: Valkey sells it, PostgreSQL has no such product.")


def _open_orders(case: Case, evidence: Evidence) -> None:
    rows = {order.id: order for order in evidence.postgres.orders}
    live = {order.id: order for order in evidence.valkey.live}
    for order in evidence.postgres.orders:
        if order.state in _OPEN:
            case.checked += 1
            if order.id not in live:
                case.against(f"Order {order.id} is {order.state} in PostgreSQL and not live in Valkey.")
    for id_, open_order in live.items():
        case.checked += 1
        row = rows.get(id_)
        if row is None:
            case.against(f"Order {id_} is {open_order.state} in Valkey and PostgreSQL has never heard of it.")
        else:
            _same(case, open_order, row)


def _same(case: Case, order: LiveOrder, row: OrderRow) -> None:
    for field in _FIELDS:
        here, there = getattr(order, field), getattr(row, field)
        if here != there:
            case.against(f"Order {row.id}: {field} is {here!r} in Valkey and {there!r} in PostgreSQL.")
