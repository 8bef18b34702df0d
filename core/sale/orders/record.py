"""The record of orders in PostgreSQL as the sale plane reads it, in batches: one query for all who ask at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from core.backends.batches import CALM_SPACING_S, Batches, Sink
from core.backends.postgres import Postgres
from core.backends.texts import text
from core.ids import fingerprint
from core.sale.delivery.vault import Vault, VaultLocked
from core.telemetry import Secret


class OrderRecord(msgspec.Struct, frozen=True):
    """An order as PostgreSQL has it; ``keys`` only when it is delivered."""

    sku: str
    buyer: str
    quantity: int
    amount: int
    currency: str
    state: str
    pay_by_ms: int
    keys: tuple[Secret, ...] = ()


class Records:
    """Batched reading. The keys of delivered orders are opened here, after their sale was committed."""

    def __init__(self, postgres: Postgres, vault: Vault) -> None:
        self._postgres, self._vault = postgres, vault
        self._lane: Batches[bytes, OrderRecord | VaultLocked | None] = Batches(
            self._read, most=500, waiting_most=50_000, spacing_s=CALM_SPACING_S
        )

    async def find(self, order_id: bytes) -> OrderRecord | None:
        """Return an order, or None.

        Raises:
            StoreUnavailable, StoreUnknown: PostgreSQL did not say.
            VaultLocked: a card key of this order does not open.
        """
        found = await self._lane.put(order_id)
        if isinstance(found, VaultLocked):
            raise found
        return found

    def find_for(self, order_id: bytes, sink: Sink) -> None:
        """Look an order up; ``sink`` gets the record, None, or a ``VaultLocked`` as its result.

        Raises:
            Overloaded: too many ask.
        """
        self._lane.put_for(order_id, sink)

    async def for_payment(self, order_id: bytes) -> list[Any] | None:
        """Return an order as the record that pay.lua knows (see shard.lua), or None."""
        found = await self.find(order_id)
        if found is None:
            return None
        print_ = fingerprint(found.sku, found.quantity)
        place = [found.state, print_, found.sku, found.buyer, found.quantity, found.amount, found.currency]
        return [*place, found.pay_by_ms, 0]

    async def _read(self, ids: list[bytes]) -> Sequence[OrderRecord | VaultLocked | None]:
        uuids = [UUID(bytes=order_id) for order_id in ids]
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(text("sale/orders/record_of_orders.sql"), uuids)
            delivered = [row["id"] for row in rows if row["state"] == "delivered"]
            sealed = await connection.fetch(text("sale/delivery/keys_of_orders.sql"), delivered) if delivered else []
        opened: dict[Any, list[Secret]] = {}
        locked: dict[Any, VaultLocked] = {}
        for row in sealed:
            try:
                opened.setdefault(row["order_id"], []).append(self._vault.open(row["id"], row["sealed"]))
            except VaultLocked as error:
                locked[row["order_id"]] = error  # one bad row must not stand before its neighbours
        found: dict[UUID, OrderRecord] = {}
        for row in rows:
            found[row["id"]] = OrderRecord(**dict(tuple(row.items())[1:]), keys=tuple(opened.get(row["id"], ())))
        return [locked.get(uuid) or found.get(uuid) for uuid in uuids]
