"""The record of a finished order, byte for byte as ``close_finished`` and ``open_finished`` of finished.lua have it.

Most orders that Valkey holds are finished, and kept for their idempotency time alone. Their record has what answers a
retry or a second charge: state, fingerprint, ``pay_by``, amount and currency, 24 bytes as a rule; and SKU, buyer and
quantity unless the order is delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, Final

import msgspec

from core.sale.orders.order import State

_HEAD: Final = Struct(">B8sQ")  # state, fingerprint, pay_by
_STATES: Final = tuple(
    state.value for state in State
)  # their numbers, from 1, are in every record: only add at the end
_pack = msgspec.msgpack.Encoder().encode


def close_finished(record: Sequence[Any]) -> bytes:
    """Return the stored form of an order's record (its places as in shard.lua)."""
    state, fingerprint, sku, buyer, quantity, amount, currency, pay_by_ms = record[:8]
    head = _HEAD.pack(_STATES.index(state) + 1, bytes.fromhex(fingerprint), pay_by_ms)
    rest = () if state == State.DELIVERED else (sku, buyer, quantity)
    return head + b"".join([_pack(value) for value in (amount, currency, *rest)])


def open_finished(stored: bytes) -> list[Any]:
    """Return an order's record; of a delivered one SKU, buyer and quantity are None: PostgreSQL has them."""
    number, fingerprint, pay_by_ms = _HEAD.unpack_from(stored)
    # Values stand one after the other; an array's head in front makes them one. msgspec asks for the exact number.
    delivered = _STATES[number - 1] == State.DELIVERED
    values = msgspec.msgpack.decode((b"\x92" if delivered else b"\x95") + stored[_HEAD.size :])
    amount, currency, sku, buyer, quantity = [*values, None, None, None][:5]
    return [_STATES[number - 1], fingerprint.hex(), sku, buyer, quantity, amount, currency, pay_by_ms, 0]
