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
from core.sale.delivery.store import claim, note_owed, owed, states


class TornClaim(Fault):
    """A claim gave an order some of its keys but not all, and was rolled back. This is a defect: tell the makers."""

    code = "torn_claim"


async def prepare(connection: Connection) -> None:
    """Make a session fit to deliver large batches in linear time (see claim.sql), by key, and planned once."""
    await connection.execute(
        "SET enable_mergejoin = off; SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan"
    )


async def deliver(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Deliver paid orders inside the caller's transaction; return the keys given to each order that got them.

    An order for which not enough keys are free stays paid, and is noted for the cure.

    Raises:
        TornClaim: the caller must roll back.
    """
    if not order_ids:
        return {}
    rows = await claim(connection, text("sale/delivery/claim.sql"), order_ids)
    torn = [row["order_id"] for row in rows if not row["whole"]]
    if torn:
        raise TornClaim(f"{TornClaim.message()} Order {torn[0]}.")
    given = {row["order_id"]: row["keys"] for row in rows}
    without = [order for order in order_ids if order not in given]
    if without:
        await note_owed(connection, without)
    return given


async def cure(connection: Connection, most: int) -> tuple[dict[UUID, str], int]:
    """Deliver paid orders that found no free key before, oldest first, in a transaction of its own.

    Returns:
        where each order looked at stands now, and how many keys were given. Those that are no longer paid must be
        settled and then forgotten (``store.forget_owed``), in this order: who dies between does it again.
    """
    waiting = await owed(connection, most)
    if not waiting:
        return {}, 0
    async with connection.transaction():
        given = await deliver(connection, waiting)
        return await states(connection, waiting), sum(given.values())
