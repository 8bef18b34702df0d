"""Facts: what the accepting scripts say has happened. The stream of them is the journal of the shop.

One stream entry holds one batch; each of its fields and values is a record, and each record stands alone::

    digest (16 hex digits of SHA-1 over the rest) · order id (16 bytes) · msgpack array [kind, …]
    'p' · digest (of the array without the buyer) · order id · CRC-32 of id and buyer · msgpack array [placed, …]

The append-only file has no checksum, so each record carries one; a record whose digest does not match, or
that does not decode, is set aside without harm to its neighbours. SHA-1 is what a script can reach; it guards
against flipped bytes here, not against a forger.

A placed order has the second form: all but id and buyer is the same for the orders of a batch, so its digest is made
once, and the worker adds the CRC-32 (4 bytes, big-endian) of the rest for a tenth of the price. A digest of its own
was a sixth of what an order cost Valkey.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TypeAlias
from zlib import crc32

import msgspec

DIGEST_CHARS = 16
PLACED_MARK = b"p"  # no digit: a digest cannot begin with it
_HEAD = DIGEST_CHARS + 16
_ID = 1 + DIGEST_CHARS  # where a placed order's id begins, its check, and its array
_CHECK = _ID + 16
_BODY = _CHECK + 4


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
_encode = msgspec.msgpack.Encoder().encode


class Poison(Exception):
    """A record that cannot be believed or understood; the text says why."""


def open_record(record: bytes) -> tuple[bytes, Fact]:
    """Return (order id, fact) of one record.

    Raises:
        Poison: the digest does not match, or the rest is no fact this code knows.
    """
    if record[:1] == PLACED_MARK:
        return _open_placed(record)
    if len(record) <= _HEAD or _digest(record[DIGEST_CHARS:]) != record[:DIGEST_CHARS]:
        raise Poison("digest does not match")
    return record[DIGEST_CHARS:_HEAD], _decode(record[_HEAD:])


def _open_placed(record: bytes) -> tuple[bytes, Fact]:
    order_id, check, body = record[_ID:_CHECK], record[_CHECK:_BODY], record[_BODY:]
    fact = _decode(body)
    if not isinstance(fact, Placed):
        raise Poison("digest does not match")
    before, after = _around_buyer(body, fact)
    if _digest_again(before + after) != record[1:_ID] or buyer_check(order_id, fact.buyer) != int.from_bytes(
        check, "big"
    ):
        raise Poison("digest does not match")
    return order_id, fact


def _decode(body: bytes) -> Fact:
    try:
        fact: Fact = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Poison(f"not a fact: {error}") from error
    return fact


def _digest(body: bytes) -> bytes:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()[:DIGEST_CHARS].encode()


_digest_again = lru_cache(maxsize=64)(_digest)  # the records of one batch ask for the same one


def buyer_check(order_id: bytes, buyer: str) -> int:
    """Return the CRC-32 of an order's id and buyer."""
    return crc32(buyer.encode(), crc32(order_id))


def _around_buyer(body: bytes, fact: Placed) -> tuple[bytes, bytes]:
    """Return the bytes before and behind the buyer of a placed fact's array."""
    begin = 1 + sum(len(_encode(text)) for text in ("placed", fact.sku))
    end = begin + len(_encode(fact.buyer))
    return body[:begin], body[end:]


def close_record(order_id: bytes, fact: Fact) -> bytes:
    """Return the record of a fact, as the scripts write it (tests and tools use this; the scripts do it in Lua)."""
    body = msgspec.msgpack.encode(fact)
    if not isinstance(fact, Placed):
        return _digest(order_id + body) + order_id + body
    before, after = _around_buyer(body, fact)
    check = buyer_check(order_id, fact.buyer).to_bytes(4, "big")
    return PLACED_MARK + _digest(before + after) + order_id + check + body
