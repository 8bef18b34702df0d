"""Accepted means on disk: every order a buyer was ever promised is in PostgreSQL, as it was promised.

Evidence: every place attempt answered ``accepted`` or ``replayed``, against the order rows: same id, buyer,
SKU, quantity and, where the answer was recorded with them, amount and currency. Every order a gateway or a
buyer was told a state of must exist too.

It stops the acknowledged write that is gone after a kill: ``everysec`` lost 85 of 1,413 on a plain SIGKILL
with a slow disk; a capped stream (``XADD … MAXLEN``) destroyed pending entries; a queue that retries without
bound forgets on restart.

It cannot see an order whose acceptance no buyer was told of: that outcome is unknown, and both endings are
right.
"""

from __future__ import annotations

from loadtests.checkers.answers import has_order
from loadtests.checkers.case import Case
from loadtests.record.evidence import Evidence, Finding, OrderRow
from loadtests.record.history import Attempt

_TRACKED = frozenset({"reserved", "paid", "delivered", "expired", "cancelled", "refund_due"})
_CHARGED = frozenset({"paid", "late", "refund_due"})


def check(evidence: Evidence) -> Finding:
    """Return whether every promised order is there."""
    case = Case("no_order_lost")
    rows = {order.id: order for order in evidence.postgres.orders}
    for attempt in evidence.attempts:
        if has_order(attempt):
            case.checked += 1
            _promised(case, attempt, rows)
        elif attempt.result == "ok" and attempt.order_id and attempt.order_id not in rows:
            told = _TRACKED if attempt.op in ("track", "cancel") else _CHARGED if attempt.op == "pay" else ()
            if attempt.outcome in told:
                case.checked += 1
                case.against(
                    f"Order {attempt.order_id} of buyer {attempt.buyer} was answered as {attempt.outcome} "
                    f"to a {attempt.op} and is not in PostgreSQL."
                )
    return case.close()


def _promised(case: Case, attempt: Attempt, rows: dict[str, OrderRow]) -> None:
    row = rows.get(attempt.order_id)
    if row is None:
        case.against(
            f"Order {attempt.order_id or '(without id)'} of buyer {attempt.buyer} "
            f"({attempt.quantity} of {attempt.sku}) "
            f"was {attempt.outcome} and is not in PostgreSQL."
        )
        return
    promised = (attempt.buyer, attempt.sku, attempt.quantity)
    kept = (row.buyer, row.sku, row.quantity)
    if promised != kept:
        case.against(f"Order {row.id} was {attempt.outcome} as {promised} and is kept as {kept}.")
    if attempt.currency and (attempt.amount, attempt.currency) != (row.amount, row.currency):
        case.against(
            f"Order {row.id} was promised for {attempt.amount} {attempt.currency} "
            f"and is kept at {row.amount} {row.currency}."
        )
