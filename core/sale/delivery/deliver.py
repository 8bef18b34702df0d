"""Deliver: claim the keys of paid orders and commit that, before anyone can see one.

Exactly once by facts of the database, not by checks: one statement takes free keys under lock, the key and the order's
line are each unique, and the order's state moves in the same statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from core.backends.postgres import Connection
from core.backends.texts import text
from core.errors import Fault
from core.sale.delivery.store import claim


class TornClaim(Fault):
    """A claim gave an order some of its keys but not all, and was rolled back. This is a defect: tell the makers."""

    code = "torn_claim"


async def deliver(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Deliver paid orders inside the caller's transaction; return the keys given to each order that got them.

    An order for which not enough keys are free stays paid, and is looked at again by the cure.

    Raises:
        TornClaim: the caller must roll back.
    """
    if not order_ids:
        return {}
    rows = await claim(connection, text("sale/delivery/claim.sql"), order_ids)
    torn = [row["order_id"] for row in rows if not row["whole"]]
    if torn:
        raise TornClaim(f"{TornClaim.message()} Order {torn[0]}.")
    return {row["order_id"]: row["keys"] for row in rows}
