"""Pay: take what a gateway reports, once, whatever is repeated, late or out of order.

On return the report is on disk in Valkey, or was there before, or changed nothing. Every charge ends in exactly one of:
the order paid; the order paid late, with units reserved again; a refund due.
"""

from __future__ import annotations

from typing import Any, Final

from core.backends.batches import Sink
from core.errors import AmountMismatch, CurrencyMismatch, EventReused, Refusal, UnknownOrder
from core.sale.orders.answers import PayAnswer
from core.sale.orders.record import Records
from core.sale.orders.store import OrderStore, PayItem
from core.sale.payments.port import Report
from core.telemetry import MISMATCHES, log

REFUSED: Final[dict[str, type[Refusal]]] = {
    "unknown_order": UnknownOrder,
    "amount_mismatch": AmountMismatch,
    "currency_mismatch": CurrencyMismatch,
    "event_reused": EventReused,
}
# A charge that is real, but not for what this order costs.
NOT_THIS_ORDERS: Final = (AmountMismatch, CurrencyMismatch, EventReused)


class Paying:
    """The verb, with what it needs for every report."""

    def __init__(self, store: OrderStore, records: Records) -> None:
        self._store, self._records = store, records

    async def pay(self, report: Report) -> PayAnswer:
        """Apply a report and return what became of it: paid, late, refund_due, repeated or noted.

        Raises:
            UnknownOrder, AmountMismatch, CurrencyMismatch, EventReused: nothing was changed.
            Overloaded, Fenced, StoreUnavailable: nothing was changed. StoreUnknown: nobody knows.
        """
        order_id = report.order_id
        answer = await self._store.payments.put(_item(report, False))
        if answer.outcome == "unknown_order":
            # Valkey forgets finished orders after a day or two; PostgreSQL never does. Money may come later still.
            known = await self._records.for_payment(order_id)
            if known is not None:
                answer = await self._store.payments.put(_item(report, known))
        refusal = REFUSED.get(answer.outcome)
        if refusal is None:
            return answer
        if refusal in (AmountMismatch, CurrencyMismatch):
            MISMATCHES.inc()
            log(
                "error",
                answer.outcome,
                order=order_id.hex(),
                gateway=report.gateway,
                payment_event=report.event_id,
            )
        raise refusal

    def pay_for(self, report: Report, sink: Sink) -> None:
        """Apply a report as Valkey knows its order; the script's answer goes to ``sink``.

        What ``is_refused`` says of that answer changed nothing and needs a second look: let ``pay`` do it over.

        Raises:
            Overloaded: nothing was changed.
        """
        self._store.payments.put_for(_item(report, False), sink)


def is_refused(answer: PayAnswer) -> bool:
    """Say whether the script refused a report; then nothing was changed."""
    return answer.outcome in REFUSED


def _item(report: Report, known: list[Any] | bool) -> PayItem:
    gateway, event_id, order_id, status, amount, currency, paid_at_ms = report
    return PayItem(order_id, (gateway, event_id, status, amount, currency, paid_at_ms, known))
