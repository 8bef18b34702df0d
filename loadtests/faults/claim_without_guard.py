"""A claim that takes keys without looking whether they are free, in a schema that does not mind."""

from __future__ import annotations

from loadtests.faults.edit import edit

_CLAIM = "sale/delivery/claim.sql"


def plant() -> None:
    """Take the guard out of claim.sql, and the key's uniqueness out of the schema."""
    edit(_CLAIM, "WHERE card_keys.sku = w.sku AND state = 'free'", "WHERE card_keys.sku = w.sku")
    edit(_CLAIM, "AND k.state = 'free'", "")
    edit(
        "backends/migrations/0001_shop.sql",
        "key_id        bigint PRIMARY KEY",
        "key_id        bigint",
    )
