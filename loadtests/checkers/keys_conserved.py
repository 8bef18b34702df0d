"""No card key is lost on the shelf: of each SKU, loaded = free + sold + void, and sold = delivered.

Evidence: PostgreSQL alone: the imports' units, the keys by state, the deliveries with the state of their
key. A key that is delivered is never still free, and no more units are raised for sale than keys were
loaded.

It stops the unit that a crash between two statements leaves sold to nobody, the key sold while it still lies
on the shelf, an import that stops half way (all or nothing), and a counter raised by more than the file
held.

It cannot see whether a key works; that is between the shop and its supplier.
"""

from __future__ import annotations

from loadtests.checkers.case import Case
from loadtests.record.evidence import Evidence, Finding


def check(evidence: Evidence) -> Finding:
    """Return whether every loaded key is accounted for."""
    case = Case("keys_conserved")
    sold: dict[str, int] = {}
    for delivery in evidence.postgres.deliveries:
        case.checked += 1
        if delivery.key_state == "sold":
            sold[delivery.key_sku] = sold.get(delivery.key_sku, 0) + 1
        elif delivery.key_state != "void":
            case.against(
                f"Key {delivery.key_hash} is delivered to order {delivery.order_id} and still {delivery.key_state}."
            )
    known = {product.sku for product in evidence.postgres.products}
    for product in evidence.postgres.products:
        case.checked += 1
        sku, kept = product.sku, product.free + product.sold + product.void
        if kept != product.loaded:
            case.against(
                f"{sku}: {product.loaded} keys loaded, but {product.free} free + {product.sold} sold "
                f"+ {product.void} void = {kept}."
            )
        if product.sold != sold.get(sku, 0):
            case.against(f"{sku}: {product.sold} keys are sold and {sold.get(sku, 0)} delivered.")
        if product.raised > product.loaded:
            case.against(f"{sku}: {product.raised} units were raised for sale from {product.loaded} keys.")
    for sku in sold.keys() - known:
        case.against(f"{sku}: {sold[sku]} keys are sold of a product that does not exist.")
    return case.close()
