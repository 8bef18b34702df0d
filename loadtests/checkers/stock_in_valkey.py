"""Inside Valkey no unit appears or vanishes: free units and units bought make up the units raised.

Evidence: each SKU's ``free`` counter, the per-buyer ``bought`` counts (units held or bought, written by the
same script call), the live orders, and the units raised. For every SKU free + bought = raised and free ≥ 0;
for every buyer the live orders fit into what the counts say, and a count is never zero or less (such entries
are dropped).

It stops the unit lost between a decrement and its record (Nexi77, miaosha, FlashSale-Py, dianping #1: kill
-9 there lost 33 to 67 units in four of four tries), the double release of one reservation, and an import
counted twice.

It cannot see two errors of the same size in both counters; ``stock_across_stores`` and ``buyer_limit``
compare each with PostgreSQL.
"""

from __future__ import annotations

from loadtests.checkers.case import Case
from loadtests.record.evidence import Evidence, Finding


def check(evidence: Evidence) -> Finding:
    """Return whether Valkey's counters agree with each other and with what was raised."""
    case = Case("stock_in_valkey")
    valkey = evidence.valkey
    raised = {product.sku: product.raised for product in evidence.postgres.products}
    for sku in sorted(raised.keys() | valkey.free.keys() | valkey.bought.keys()):
        case.checked += 1
        free = valkey.free.get(sku, 0)
        bought = sum(valkey.bought.get(sku, {}).values())
        if free < 0:
            case.against(f"{sku}: {free} units free: more were taken than there were.")
        if free + bought != raised.get(sku, 0):
            case.against(
                f"{sku}: {free} free + {bought} held or bought = {free + bought} units, "
                f"but {raised.get(sku, 0)} were raised."
            )
    live: dict[tuple[str, str], int] = {}
    for order in valkey.live:
        live[order.sku, order.buyer] = live.get((order.sku, order.buyer), 0) + order.quantity
    for (sku, buyer), units in live.items():
        case.checked += 1
        counted = valkey.bought.get(sku, {}).get(buyer, 0)
        if units > counted:
            case.against(f"{sku}: buyer {buyer} has live orders of {units} units, the counter says {counted}.")
    for sku, buyers in valkey.bought.items():
        for buyer, units in buyers.items():
            if units <= 0:
                case.against(f"{sku}: the counter of buyer {buyer} says {units}.")
    return case.close()
