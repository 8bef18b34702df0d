"""Facts: what the accepting scripts say has happened. The stream of them is the journal of the shop.

One stream entry holds one batch; each of its fields and values is a record, and each record stands alone::

    digest (16 hex digits of SHA-1 over the rest) · order id (16 bytes) · msgpack array [kind, …]
    'P' · size · terms · frames · terms · size · 'P'      orders placed together, of one SKU and quantity
        size     of the terms, 2 bytes
        terms    digest (of the array) · msgpack array [placed, …] without the buyer
        frame    order id · CRC-32 of id and buyer (4 bytes) · size of the buyer (2 bytes) · buyer

The append-only file has no checksum, so each record carries one; a record whose digest does not match, or that does
not decode, is set aside without harm to its neighbours. SHA-1 is what a script can reach; it guards against flipped
bytes here, not against a forger.

What placed orders have alike is written once for all, and the frames are made by the worker: one argument instead of
one an order, nothing to make in the script, and 40 bytes of the journal an order instead of 104. Yet a flipped byte
costs one order at most: the terms stand there twice, each frame has its check, and behind a frame that cannot be
believed the next that can be is looked for. ``parts`` takes such a record apart into records of one order::

    'o' · size · terms · frame

What the tree before wrote for each placed order is read, for a journal that was not drained when ``work`` was renewed::

    'p' · digest (of the array without the buyer) · order id · CRC-32 of id and buyer · msgpack array [placed, …]
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from struct import Struct
from typing import TypeAlias
from zlib import crc32

import msgspec

DIGEST_CHARS = 16
GROUP_MARK, PART_MARK, OLD_MARK = b"P", b"o", b"p"  # no digits: a digest cannot begin with them
_HEAD = DIGEST_CHARS + 16
_SIZE = 2  # bytes of a size
_AROUND = 1 + _SIZE  # what stands around the terms of a group: mark and size
_TAIL = Struct(">IH")  # of a frame, behind the id: check, size of the buyer
FRAME_BYTES = 16 + _TAIL.size  # of a frame, but for the buyer
# A larger buyer is none: without this bound, looking for the next frame among a thousand that were damaged took 9 s.
BUYER_BYTES_MOST = 512


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


class _Terms(_Fact, frozen=True, tag="placed"):
    """What orders placed together have alike."""

    sku: str
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
_decode_terms = msgspec.msgpack.Decoder(_Terms).decode
_encode = msgspec.msgpack.Encoder().encode


class Poison(Exception):
    """A record that cannot be believed or understood; the text says why."""


def parts(record: bytes) -> list[bytes]:
    """Return the records of one order, or one fact, that a record of the journal holds, in their order.

    What cannot be believed comes back as a part that ``open_record`` refuses, also a damaged copy of the terms; nothing
    but a mark is left out.
    """
    if record[:1] != GROUP_MARK and record[-1:] != GROUP_MARK:
        return [record]
    first = record[_AROUND : _AROUND + int.from_bytes(record[1:_AROUND], "big")]
    last = record[-_AROUND - int.from_bytes(record[-_AROUND:-1], "big") : -_AROUND]
    believed = [terms for terms in (first, last) if _is_sealed(terms)]
    if not believed:
        return [record]
    head = PART_MARK + len(believed[0]).to_bytes(_SIZE, "big") + believed[0]
    begin = _AROUND + len(first) if _is_sealed(first) else 0
    end = len(record) - _AROUND - len(last) if _is_sealed(last) else len(record)
    return [head + one for one in _frames(record[begin:end])] or [record]


def _frames(joined: bytes) -> Iterator[bytes]:
    """Yield the frames, and between them what is none: up to the next byte with which one begins."""
    begin, end = 0, len(joined)
    while begin < end:
        size = _frame_size(joined, begin)
        if not size:
            later = (at for at in range(begin + 1, end) if _frame_size(joined, at))
            size = next(later, end) - begin
        yield joined[begin : begin + size]
        begin += size


def _frame_size(joined: bytes, at: int) -> int:
    """Return how many bytes the frame has that begins here, 0 if none does."""
    behind = at + FRAME_BYTES
    if behind > len(joined):
        return 0
    check, size = _TAIL.unpack_from(joined, at + 16)
    if size > BUYER_BYTES_MOST or behind + size > len(joined):
        return 0
    if crc32(joined[behind : behind + size], crc32(joined[at : at + 16])) != check:
        return 0
    return FRAME_BYTES + int(size)


def frame(order_id: bytes, buyer: str) -> bytes:
    """Return what the journal keeps of a placed order by itself."""
    name = buyer.encode()
    return order_id + _TAIL.pack(crc32(order_id + name), len(name)) + name


def open_record(record: bytes) -> tuple[bytes, Fact]:
    """Return (order id, fact) of one record, taken apart before if it is of many orders.

    Raises:
        Poison: the digest does not match, or the rest is no fact this code knows.
    """
    if record[:1] == PART_MARK:
        return _open_placed(record)
    if record[:1] == OLD_MARK:
        return _open_old(record)
    if len(record) <= _HEAD or _digest(record[DIGEST_CHARS:]) != record[:DIGEST_CHARS]:
        raise Poison("digest does not match")
    return record[DIGEST_CHARS:_HEAD], _decode(record[_HEAD:])


def _decode(body: bytes) -> Fact:
    try:
        fact: Fact = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Poison(f"not a fact: {error}") from error
    return fact


def _open_old(record: bytes) -> tuple[bytes, Fact]:
    digest, order_id, check, body = record[1:17], record[17:33], record[33:37], record[37:]
    fact = _decode(body)
    if not isinstance(fact, Placed):
        raise Poison("digest does not match")
    begin = 1 + sum(len(_encode(text)) for text in ("placed", fact.sku))
    around = body[:begin] + body[begin + len(_encode(fact.buyer)) :]
    if _digest(around) != digest or crc32(fact.buyer.encode(), crc32(order_id)) != int.from_bytes(check, "big"):
        raise Poison("digest does not match")
    return order_id, fact


def _open_placed(record: bytes) -> tuple[bytes, Fact]:
    begin = 1 + _SIZE + int.from_bytes(record[1 : 1 + _SIZE], "big")
    terms = _open_terms(record[1 + _SIZE : begin])
    size = _frame_size(record, begin)
    if not size or size != len(record) - begin:
        raise Poison("digest does not match")
    try:
        buyer = record[begin + FRAME_BYTES :].decode()
    except UnicodeDecodeError as error:
        raise Poison(f"not a fact: {error}") from error
    fact = Placed(terms.sku, buyer, terms.quantity, terms.amount, terms.currency, terms.at_ms, terms.pay_by_ms)
    return record[begin : begin + 16], fact


def _is_sealed(terms: bytes) -> bool:
    return len(terms) > DIGEST_CHARS and _digest(terms[DIGEST_CHARS:]) == terms[:DIGEST_CHARS]


@lru_cache(maxsize=64)  # the orders of one batch ask for the same
def _open_terms(terms: bytes) -> _Terms:
    if not _is_sealed(terms):
        raise Poison("digest does not match")
    try:
        return _decode_terms(terms[DIGEST_CHARS:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Poison(f"not a fact: {error}") from error


def _digest(body: bytes) -> bytes:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()[:DIGEST_CHARS].encode()


def close_record(order_id: bytes, fact: Fact) -> bytes:
    """Return the record of a fact (tests and tools use this; the scripts do it in Lua), of a placed order its part."""
    if not isinstance(fact, Placed):
        body = msgspec.msgpack.encode(fact)
        return _digest(order_id + body) + order_id + body
    terms = close_terms(fact)
    return PART_MARK + len(terms).to_bytes(_SIZE, "big") + terms + frame(order_id, fact.buyer)


def close_terms(fact: Placed) -> bytes:
    """Return the terms of a placed order, sealed."""
    array = _encode(_Terms(fact.sku, fact.quantity, fact.amount, fact.currency, fact.at_ms, fact.pay_by_ms))
    return _digest(array) + array
