"""A repeated callback that counts as a payment again, and brings the order a second set of keys."""

from __future__ import annotations

from loadtests.faults.edit import edit


def plant() -> None:
    """Let pay.lua, the projection and the schema forget that an event was seen."""
    edit(
        "sale/orders/pay.lua",
        "return { 'repeated', order[STATE] }",
        "paid_fact(id, say, 'first', '') return { 'paid', order[STATE] }",
    )
    paid = "sale/orders/project_paid.sql"
    edit(
        paid,
        "s.applied = 'first' AND o.state = 'reserved'",
        "s.applied = 'first' AND o.state IN ('reserved', 'delivered')",
    )
    edit(paid, "FROM said s JOIN recorded USING (gateway, event_id)\n    WHERE o.id", "FROM said s\n    WHERE o.id")
    edit("backends/migrations/0001_shop.sql", ",\n    UNIQUE (order_id, line)", "")
