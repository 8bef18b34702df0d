"""Project: turn journal entries into rows, in one transaction with the cursor that says how far they reach.

Facts are applied kind by kind: placed, released, paid. Within a batch that is the same as one by one, because of any
order the journal can only hold placed, then at most one release, then at most one payment that counts (shard.lua
decides that); a second charge never moves an order. So each kind is one statement, whatever the number of facts.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from core.backends.postgres import Connection
from core.facts import Paid, Placed, Released, Stocked, close_record
from core.sale.delivery.deliver import deliver
from core.sale.delivery.store import states
from core.sale.orders import journal
from core.sale.orders.entry import Entry, Row, read


class Outcome(NamedTuple):
    """What a projection did, for telling Valkey, waking buyers and counting."""

    settled: list[tuple[bytes, str, bool]]  # (order id, state, undo), see settle.lua
    keys: int
    facts: int
    poisoned: int
    oldest_ms: int  # instant of the oldest entry, 0 for none


async def project(connection: Connection, shard: int, entries: list[Entry], cursor: tuple[int, int]) -> Outcome:
    """Apply entries on top of ``cursor`` and move it to the last of them; all or nothing.

    Raises:
        CursorMoved: another projector was here; nothing was applied.
        TornClaim: see ``deliver``.
    """
    rows, poison = read(entries)
    async with connection.transaction():
        undo = await journal.placed(connection, shard, _of(rows, Placed))
        released = await journal.released(connection, _of(rows, Released))
        paid = await journal.paid(connection, _of(rows, Paid))
        await journal.stocked(connection, _of(rows, Stocked))
        given = await deliver(connection, [order for order, after in paid.items() if after == "paid"])
        poison += _lost(rows, released)
        await journal.quarantine(connection, shard, poison)
        await journal.advance(connection, shard, cursor, (entries[-1].ms, entries[-1].seq))
        known = await states(connection, undo)
    settled = [(order.bytes, "delivered" if order in given else after, False) for order, after in paid.items()]
    settled += [(order.bytes, state, False) for order, state in released.items() if order not in paid]
    settled += [(order.bytes, state, True) for order, state in known.items()]
    return Outcome(settled, sum(given.values()), len(rows), len(poison), entries[0].ms if entries else 0)


def _of(rows: list[Row], kind: type) -> list[Row]:
    return [row for row in rows if type(row.fact) is kind]


def _lost(rows: list[Row], released: dict[UUID, str]) -> list[tuple[int, int, int, str, bytes]]:
    """Releases that found no reservation: their order's own fact was lost or set aside. An operator must look."""
    return [
        (row.ms, row.seq, row.record, "no reservation to release", close_record(row.order_id.bytes, row.fact))
        for row in rows
        if isinstance(row.fact, Released) and row.order_id not in released
    ]
