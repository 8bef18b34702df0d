"""Facts: what the accepting scripts say has happened. The stream of them is the journal of the shop.

One stream entry holds one batch, as repeated fields ``r``; each record stands alone::

    digest (16 hex digits of SHA-1 over the rest) · order id (16 bytes) · msgpack array [kind, …]

The append-only file has no checksum, so each record carries one; a record whose digest does not match, or
that does not decode, is set aside without harm to its neighbours. SHA-1 is what a script can reach; it guards
against flipped bytes here, not against a forger.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import msgspec

DIGEST_CHARS = 16
_HEAD = DIGEST_CHARS + 16


class _Fact(msgspec.Struct, frozen=True, array_like=True):
    """Every fact is an array on the wire: the tag first, then the fields in the order they stand here."""


class Placed(_Fact, frozen=True, tag="placed"):
    """Units were reserved for a new order. Amount in minor units, instants in ms since 1970."""

    sku: str
    buyer: str
    quantity: int
    amount: int
    currency: str
    at_ms: int
    pay_by_ms: int


class Paid(_Fact, frozen=True, tag="paid"):
    """The gateway charged the buyer.

    ``applied`` is ``first`` (the reservation stood), ``late`` (it had ended and units were reserved again),
    or ``refund_due`` (nothing left to give, or charged a second time).
    """

    gateway: str
    event_id: str
    amount: int
    currency: str
    paid_at_ms: int
    at_ms: int
    applied: str
    refusal: str


class Released(_Fact, frozen=True, tag="released"):
    """A reservation ended without a sale; ``state`` is ``expired`` or ``cancelled``. Its units are free again."""

    state: str
    at_ms: int


class Stocked(_Fact, frozen=True, tag="stocked"):
    """An import's units were added to the counter. The record's id is the import's, padded to 16 bytes."""

    sku: str
    units: int
    at_ms: int


Fact: TypeAlias = Placed | Paid | Released | Stocked
_decoder = msgspec.msgpack.Decoder(Fact)


class Poison(Exception):
    """A record that cannot be believed or understood; the text says why."""


def open_record(record: bytes) -> tuple[bytes, Fact]:
    """Return (order id, fact) of one record.

    Raises:
        Poison: the digest does not match, or the rest is no fact this code knows.
    """
    body = record[DIGEST_CHARS:]
    if (
        len(record) <= _HEAD
        or hashlib.sha1(body, usedforsecurity=False).hexdigest()[:DIGEST_CHARS].encode() != (record[:DIGEST_CHARS])
    ):
        raise Poison("digest does not match")
    try:
        return record[DIGEST_CHARS:_HEAD], _decoder.decode(record[_HEAD:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Poison(f"not a fact: {error}") from error


def close_record(order_id: bytes, fact: Fact) -> bytes:
    """Return the record of a fact, as the scripts write it (tests and tools use this; the scripts do it in Lua)."""
    body = order_id + msgspec.msgpack.encode(fact)
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()[:DIGEST_CHARS].encode() + body
