"""Facts: what is read is what was written, or it is not believed at all."""

from __future__ import annotations

import hashlib
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.facts import DIGEST_CHARS, Fact, Paid, Placed, Poison, Released, Stocked, close_record, open_record

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


def sealed(body: bytes) -> bytes:
    """Return a record whose digest fits, whatever it holds."""
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()[:DIGEST_CHARS].encode() + body


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
    array = ["placed", "HOT", "ann", 2, 1998, "CNY", 1_800_000_000_000, 1_800_000_900_000]
    around = (
        b"\x98\xa6placed\xa3HOT",
        b"\x02" + msgspec.msgpack.encode(1998) + b"\xa3CNY" + b"".join(map(msgspec.msgpack.encode, array[-2:])),
    )
    digest = hashlib.sha1(b"".join(around), usedforsecurity=False).hexdigest()[:16].encode()
    check = zlib.crc32(ID + b"ann").to_bytes(4, "big")
    assert close_record(ID, PLACED) == b"p" + digest + ID + check + around[0] + b"\xa3ann" + around[1]
    assert open_record(sealed(ID + msgspec.msgpack.encode(array))) == (ID, PLACED)  # as it was written once
    assert open_record(sealed(ID + msgspec.msgpack.encode(["released", "expired", 7]))) == (ID, Released("expired", 7))


def test_a_later_release_may_add_a_field_at_the_end() -> None:
    """Stops: a rolling update in which the old projector sets every fact of the new scripts aside."""
    longer = ["released", "expired", 7, "new word"]
    assert open_record(sealed(ID + msgspec.msgpack.encode(longer))) == (ID, Released("expired", 7))
