"""Facts: what is read is what was written, or it is not believed at all."""

from __future__ import annotations

import hashlib
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.facts import (
    DIGEST_CHARS,
    Fact,
    Paid,
    Placed,
    Poison,
    Released,
    Stocked,
    close_record,
    close_terms,
    frame,
    open_record,
    parts,
)

WORDS = st.text(max_size=40)
COUNTS = st.integers(min_value=0, max_value=10**15)
FACTS: st.SearchStrategy[Fact] = st.one_of(
    st.builds(Placed, WORDS, WORDS, COUNTS, COUNTS, WORDS, COUNTS, COUNTS),
    st.builds(Paid, WORDS, WORDS, COUNTS, WORDS, COUNTS, COUNTS, WORDS, WORDS),
    st.builds(Released, WORDS, COUNTS),
    st.builds(Stocked, WORDS, COUNTS, COUNTS),
)
IDS = st.binary(min_size=16, max_size=16)
ID = bytes(range(16))
PLACED = Placed("HOT", "ann", 2, 1998, "CNY", 1_800_000_000_000, 1_800_000_900_000)
BATCHES = st.lists(st.tuples(IDS, WORDS), min_size=1, max_size=9)


def sealed(body: bytes) -> bytes:
    """Return a record whose digest fits, whatever it holds."""
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()[:DIGEST_CHARS].encode() + body


def together(orders: list[tuple[bytes, str]]) -> bytes:
    """Return the record of orders placed together, as place.lua writes it."""
    terms = close_terms(PLACED)
    size = len(terms).to_bytes(2, "big")
    return b"".join([b"P", size, terms, *(frame(*order) for order in orders), terms, size, b"P"])


def believed(record: bytes) -> list[tuple[bytes, str]]:
    """Return what of a record of many orders is believed; each must be under the terms it was placed under."""
    orders = []
    for part in parts(record):
        try:
            order_id, fact = open_record(part)
        except Poison:
            continue
        assert isinstance(fact, Placed)
        assert msgspec.structs.replace(fact, buyer="ann") == PLACED
        orders.append((order_id, fact.buyer))
    return orders


@given(BATCHES)
def test_orders_placed_together_are_read_back_one_by_one(orders: list[tuple[bytes, str]]) -> None:
    """Stops: an order of a batch that is lost, or gets the buyer or the terms of another."""
    assert believed(together(orders)) == orders


@given(BATCHES, st.data())
def test_a_flipped_bit_costs_one_order_of_a_batch_at_most(orders: list[tuple[bytes, str]], data: st.DataObject) -> None:
    """Stops: a damaged size, mark or word of the terms that takes a whole batch with it, or makes up an order."""
    record = bytearray(together(orders))
    at = data.draw(st.integers(0, len(record) - 1), label="byte")
    record[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    left = believed(bytes(record))
    around = 3 + len(close_terms(PLACED))
    assert len(left) == len(orders) - (around <= at < len(record) - around)
    assert all(order in orders for order in left)
    shown = len(parts(bytes(record))) - len(left)  # to the operator: what is damaged, be it a copy of the terms
    assert shown == (at not in (0, len(record) - 1))


@given(BATCHES, st.data())
def test_a_batch_cut_short_gives_the_orders_that_are_whole(
    orders: list[tuple[bytes, str]], data: st.DataObject
) -> None:
    """Stops: half an order read as a whole one, or a tail that was lost taking what came before it along."""
    record = together(orders)
    around = 3 + len(close_terms(PLACED))
    cut = data.draw(st.integers(0, len(record) - 1), label="length")
    whole, end = 0, around
    for order_id, buyer in orders:
        end += len(frame(order_id, buyer))
        whole += end <= cut
    assert believed(record[:cut]) == orders[:whole]
    pieces = parts(record[:cut])
    if pieces != [record[:cut]]:
        assert b"".join(piece[around:] for piece in pieces) == record[around:cut]


def test_both_copies_of_the_terms_damaged_is_one_record_that_is_not_believed() -> None:
    """Stops: orders of an amount that nobody vouches for."""
    record = bytearray(together([(ID, "ann"), (ID[::-1], "bob")]))
    record[30] ^= 1
    record[-30] ^= 1
    assert parts(bytes(record)) == [bytes(record)]
    with pytest.raises(Poison, match="digest"):
        open_record(bytes(record))


@given(IDS, FACTS)
def test_a_fact_is_read_back_as_it_was_written(order_id: bytes, fact: Fact) -> None:
    """Stops: fields that change places, or a kind that is read as another."""
    assert open_record(close_record(order_id, fact)) == (order_id, fact)


@given(IDS, FACTS, st.data())
def test_a_record_with_any_bit_flipped_is_not_believed(order_id: bytes, fact: Fact, data: st.DataObject) -> None:
    """Stops: a damaged append-only file that turns into wrong orders without a word; the file has no checksum."""
    record = bytearray(close_record(order_id, fact))
    at = data.draw(st.integers(0, len(record) - 1), label="byte")
    record[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    with pytest.raises(Poison):
        open_record(bytes(record))


@given(IDS, FACTS, st.data())
def test_a_record_cut_short_or_run_on_is_not_believed(order_id: bytes, fact: Fact, data: st.DataObject) -> None:
    """Stops: half a record read as a whole one."""
    record = close_record(order_id, fact)
    with pytest.raises(Poison):
        open_record(record[: data.draw(st.integers(0, len(record) - 1), label="length")])
    with pytest.raises(Poison):
        open_record(record + b"\0")


@pytest.mark.parametrize(
    "body",
    [
        ID,
        ID + b"\xc1",
        ID + msgspec.msgpack.encode(["unheard_of", 1]),
        ID + msgspec.msgpack.encode(["placed", "HOT"]),
        ID + msgspec.msgpack.encode(["released", 7, "expired"]),
        ID + msgspec.msgpack.encode({"type": "placed"}),
        ID + msgspec.msgpack.encode(["stocked", "HOT", 1.5, 2]),
        ID + b"\x93\xa8released\xa1\xff\x01",
        b"short",
    ],
)
def test_a_record_that_is_whole_but_no_fact_is_poison_with_a_reason(body: bytes) -> None:
    """Stops: an exception of a library that kills the projector, which then reads the same entry for ever."""
    with pytest.raises(Poison, match=r"\w{4}"):
        open_record(sealed(body))


def test_the_layout_on_disk_never_changes_unnoticed() -> None:
    """Stops: a release that cannot read the journal of the one before it."""
    array = msgspec.msgpack.encode(["placed", "HOT", 2, 1998, "CNY", 1_800_000_000_000, 1_800_000_900_000])
    terms = hashlib.sha1(array, usedforsecurity=False).hexdigest()[:16].encode() + array
    size = len(terms).to_bytes(2, "big")
    one = ID + zlib.crc32(ID + b"ann").to_bytes(4, "big") + b"\0\x03ann"
    assert together([(ID, "ann")]) == b"P" + size + terms + one + terms + size + b"P"
    assert parts(together([(ID, "ann")])) == [b"o" + size + terms + one] == [close_record(ID, PLACED)]
    assert open_record(sealed(ID + msgspec.msgpack.encode(["released", "expired", 7]))) == (ID, Released("expired", 7))
    old = msgspec.msgpack.encode(PLACED)
    seal = hashlib.sha1(old.replace(b"\xa3ann", b""), usedforsecurity=False).hexdigest()[:16].encode()
    assert open_record(b"p" + seal + ID + zlib.crc32(ID + b"ann").to_bytes(4, "big") + old) == (ID, PLACED)
    with pytest.raises(Poison):
        open_record(b"p" + seal + ID + zlib.crc32(ID + b"bob").to_bytes(4, "big") + old)


def test_a_later_release_may_add_a_field_at_the_end() -> None:
    """Stops: a rolling update in which the old projector sets every fact of the new scripts aside."""
    longer = ["released", "expired", 7, "new word"]
    assert open_record(sealed(ID + msgspec.msgpack.encode(longer))) == (ID, Released("expired", 7))
