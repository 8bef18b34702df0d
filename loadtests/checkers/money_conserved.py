"""Every charge is on the books once, for the right amount, and is cured: the order was served, or a refund
is due.

Evidence: the sandbox gateway's own ledger of charges, the payments in PostgreSQL, the orders and their
moves. Ledger and payments are the same set, field by field. A payment equals its order's amount and
currency, and the amount is the product's price times the quantity, in whole minor units. An order has at
most one payment applied: ``first`` goes with reserved → paid, ``late`` with expired or cancelled → paid, and
no such move is without its payment. An order that ended unpaid has no payment that is not a refund due; one
that became ``refund_due`` has a payment. What a gateway was answered is what the books say.

It stops the charge that is silently lost (a callback answered 200 and forgotten), the repeated notice
applied twice (kamiFaka: 36 of 146), cents by float (19.99 charged as 1998), an amount that is not compared,
and a validly signed callback replayed onto another order (acg-faka).

It cannot see money returned; refunds are the office's. It takes the price as it is at the end of the run.
"""

from __future__ import annotations

from loadtests.checkers.case import Case
from loadtests.record.evidence import Evidence, Finding, OrderRow, PaymentRow
from loadtests.record.history import Charge

_ENDED_UNPAID = frozenset({"reserved", "expired", "cancelled"})
_BOOKED_AS = {"paid": "first", "late": "late", "refund_due": "refund_due"}


def check(evidence: Evidence) -> Finding:
    """Return whether the gateway's ledger, the payments and the orders agree to the last minor unit."""
    case = Case("money_conserved")
    orders = {order.id: order for order in evidence.postgres.orders}
    _ledger(case, evidence)
    by_order: dict[str, list[PaymentRow]] = {}
    for payment in evidence.postgres.payments:
        by_order.setdefault(payment.order_id, []).append(payment)
        _payment(case, payment, orders.get(payment.order_id))
    paid_moves: dict[str, list[str | None]] = {}
    for event in evidence.postgres.events:
        if event.after == "paid":
            paid_moves.setdefault(event.order_id, []).append(event.before)
    price = {product.sku: (product.price, product.currency) for product in evidence.postgres.products}
    for order in evidence.postgres.orders:
        case.checked += 1
        _order(case, order, by_order.get(order.id, []), paid_moves.get(order.id, []))
        each, currency = price.get(order.sku, (0, ""))
        if (order.amount, order.currency) != (each * order.quantity, currency):
            case.against(
                f"Order {order.id} costs {order.amount} {order.currency}; "
                f"{order.quantity} of {order.sku} cost {each * order.quantity} {currency}."
            )
    _answers(case, evidence)
    return case.close()


def _ledger(case: Case, evidence: Evidence) -> None:
    charges: dict[str, Charge] = {}
    for charge in evidence.charges:
        case.checked += 1
        if charge.event_id in charges:
            case.against(f"The gateway's ledger has charge {charge.event_id} twice.")
        charges[charge.event_id] = charge
    booked: set[str] = set()
    for payment in evidence.postgres.payments:
        case.checked += 1
        found = charges.get(payment.event_id)
        if payment.event_id in booked:
            case.against(f"Charge {payment.event_id} is booked twice.")
        elif found is None:
            case.against(f"Payment {payment.event_id} of order {payment.order_id} was never charged by the gateway.")
        else:
            made = (found.order_id, found.amount, found.currency)
            kept = (payment.order_id, payment.amount, payment.currency)
            if made != kept:
                case.against(f"Charge {payment.event_id} was made as {made} and is booked as {kept}.")
        booked.add(payment.event_id)
    for id_, charge in charges.items():
        if id_ not in booked:
            case.against(
                f"Charge {id_} of {charge.amount} {charge.currency} for order {charge.order_id} "
                "is not on the books: "
                "the buyer paid and has neither a key nor a refund due."
            )


def _payment(case: Case, payment: PaymentRow, order: OrderRow | None) -> None:
    if payment.applied not in _BOOKED_AS.values():
        case.against(f"Payment {payment.event_id} is applied as {payment.applied!r}, which means nothing.")
    if order is None:
        case.against(f"Payment {payment.event_id} is for order {payment.order_id}, which does not exist.")
    elif (payment.amount, payment.currency) != (order.amount, order.currency):
        case.against(
            f"Payment {payment.event_id} of {payment.amount} {payment.currency} was booked "
            f"for order {order.id}, which costs {order.amount} {order.currency}."
        )


def _order(case: Case, order: OrderRow, payments: list[PaymentRow], paid_from: list[str | None]) -> None:
    applied = [p for p in payments if p.applied != "refund_due"]
    if len(applied) > 1:
        events = ", ".join(p.event_id for p in applied[:5])
        case.against(f"Order {order.id} has {len(applied)} payments applied: {events}.")
    if len(applied) != len(paid_from):
        case.against(f"Order {order.id}: {len(applied)} payments applied, {len(paid_from)} times paid.")
    elif applied and (applied[0].applied == "first") != (paid_from[0] == "reserved"):
        case.against(f"Order {order.id} was paid from {paid_from[0]}, its payment is booked as {applied[0].applied}.")
    if payments and order.state in _ENDED_UNPAID:
        case.against(f"Order {order.id} is {order.state}, yet {payments[0].event_id} charged its buyer: no cure.")
    if order.state in ("refund_due", "refunded") and not payments:
        case.against(f"Order {order.id} is {order.state} and nobody was charged.")
    if order.state in ("paid", "delivered", "held", "in_review", "frozen") and not applied:
        case.against(f"Order {order.id} is {order.state} without a payment applied.")


def _answers(case: Case, evidence: Evidence) -> None:
    booked = {payment.event_id: payment.applied for payment in evidence.postgres.payments}
    for attempt in evidence.attempts:
        if attempt.op == "pay" and attempt.result == "ok" and attempt.outcome in _BOOKED_AS:
            case.checked += 1
            found = booked.get(attempt.event_id, "nothing")
            if found != _BOOKED_AS[attempt.outcome]:
                case.against(f"Charge {attempt.event_id} was answered as {attempt.outcome} and is booked as {found}.")
