"""Cancel: give an unpaid reservation back at its buyer's wish."""

from __future__ import annotations

from core.errors import NotCancellable, StoreUnavailable, UnknownOrder
from core.sale.orders.pay import NOT_THIS_ORDERS, Paying
from core.sale.orders.record import Records
from core.sale.orders.store import CancelItem, OrderStore
from core.sale.payments.port import Gateway, GatewaySilent


class Cancelling:
    """The verb, with what it needs for every order."""

    def __init__(self, store: OrderStore, records: Records, paying: Paying, gateways: dict[str, Gateway]) -> None:
        self._store, self._records, self._paying, self._gateways = store, records, paying, gateways

    async def cancel(self, order_id: bytes) -> None:
        """Cancel a live, unpaid order; one that is cancelled already stays so.

        Raises:
            NotCancellable: it is paid, delivered or over; or its payment has begun and the gateway has charged.
            UnknownOrder; Overloaded, Fenced, StoreUnavailable: nothing was changed. StoreUnknown: nobody knows.
        """
        answer = await self._store.cancels.put(CancelItem(order_id, False))
        if answer.outcome == "payment_started":
            await self._ask(order_id)
            answer = await self._store.cancels.put(CancelItem(order_id, True))
        if answer.outcome == "unknown_order":
            if await self._records.find(order_id) is None:
                raise UnknownOrder
            raise NotCancellable
        if answer.outcome not in ("cancelled", "repeated"):
            raise NotCancellable(f"The order is {answer.state}. {NotCancellable.message()}")

    async def _ask(self, order_id: bytes) -> None:
        """Money may be on its way: ask every gateway first, and take what was charged."""
        for gateway in self._gateways.values():
            try:
                charge = await gateway.ask(order_id)
            except GatewaySilent as error:
                raise StoreUnavailable("The payment gateway does not say whether it charged; try again.") from error
            if charge is not None:
                try:
                    await self._paying.pay(charge)
                except NOT_THIS_ORDERS as error:
                    raise NotCancellable("A payment for this order needs the staff's attention first.") from error
                raise NotCancellable("The order has just been paid.")
