"""A head the lane has seen before is not parsed again; it must not be fooled by one that only looks like it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from smuggled import HIDDEN
from spoken import HOST, HOT, bearer, callback, order_body, place, request, status
from two_lanes import Two, codes

from core.web import plain
from core.web.plain import HEAD_MOST, PlainReader

KINDS = {"place": HOT["place"], "callback": HOT["callback"], "status": HOT["status, waiting"]}
NAMES = {"place": b"Idempotency-Key: ", "callback": b"X-Signature: ", "status": b"Authorization: "}
DAMAGE = (b"\r", b"\n", b"\0", b" ", b"\r\n")


class CountingReader(PlainReader):
    """Counts what is read in full."""

    __slots__ = ("reads",)

    def read(self, data: bytes) -> bool:
        self.reads = getattr(self, "reads", 0) + 1
        return super().read(data)


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    """Both servers; the lane knows the shape of each hot request."""
    both = Two()
    assert both.fast.lane is not None
    both.fast.lane.reader = CountingReader()
    for said in (*HOT.values(), *HOT.values()):
        both.agree(said)
    yield both
    both.close()


def reads(two: Two) -> int:
    assert two.fast.lane is not None
    return getattr(two.fast.lane.reader, "reads", 0)


def test_a_known_shape_is_not_read_again(two: Two) -> None:
    """Stops: a memory that never recalls, so that the tests below say nothing."""
    before = reads(two)
    said = (place(key="another"), callback("late-7"), status(5, "?wait=0.5"), place("limits", "k" * 100))
    taken, heard = two.taken(*said)
    assert (taken, codes(heard.answers)) == (4, [201, 200, 200, 201])
    assert reads(two) == before + 1, "the last body is longer, so its Content-Length is new"


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_in_another_spelling_is_read_each_time_and_answered_by_the_lane(two: Two, kind: str) -> None:
    """Stops: a head remembered without the value that varies, which then is read as empty."""
    said = KINDS[kind].replace(NAMES[kind], NAMES[kind].swapcase())
    before = reads(two)
    taken, heard = two.taken(said, said, said)
    assert (taken, len(set(heard.answers))) == (3, 1)
    assert reads(two) == before + 3


@pytest.mark.parametrize("kind", KINDS)
def test_any_byte_in_the_value_that_varies_is_answered_the_same(two: Two, kind: str) -> None:
    """Stops: a byte that no header may have, let in because the head around it is known."""
    head, name, behind = KINDS[kind].partition(NAMES[kind])
    value, end, rest = behind.partition(b"\r\n")
    for at, odd in ((0, DAMAGE), (len(value) // 2, [bytes([byte]) for byte in range(256)]), (len(value), DAMAGE)):
        for byte in odd:
            two.agree(head + name + value[:at] + byte + value[at:] + end + rest)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_anywhere_in_a_known_head_is_answered_the_same(two: Two, kind: str) -> None:
    """Stops: a head taken for one that is known, though a byte of it makes another request of it."""
    said = KINDS[kind]
    for at in range(said.find(b"\r\n\r\n") + 5):
        two.agree(said[:at] + said[at + 1 :])
        two.agree(said[:at] + DAMAGE[at % len(DAMAGE)] + said[at:])
        two.agree(said[:at] + DAMAGE[at % len(DAMAGE)] + said[at + 1 :], HIDDEN)


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_head_with_more_or_less_behind_it_is_not_the_known_request(two: Two, kind: str) -> None:
    """Stops: a body cut where the known one ended; what is behind it lost, or taken for a part of it."""
    said = KINDS[kind]
    for more in (b" ", b"\r\n", b"\r\n\r\n", b"x", said[:1], said[:40], said, HIDDEN, HIDDEN[:-1]):
        two.agree(said + more)
        two.agree(said + more, said)
    for less in (1, 2, 10, 40):
        two.agree(said[:-less])
        two.agree(said[:-less], said[-less:], said)


ODD_VALUES = (
    b"",
    b" ",
    b"\t",
    b"a b",
    b" \t a \t ",
    b"a" * 128,
    b"a" * 129,
    b"a" * HEAD_MOST,
    "é".encode(),
    b":",
    b",",
)


@pytest.mark.parametrize("kind", KINDS)
def test_any_value_in_a_known_head_is_answered_the_same(two: Two, kind: str) -> None:
    """Stops: an empty, blank, endless or doubled value that a known head lets through."""
    head, name, behind = KINDS[kind].partition(NAMES[kind])
    value, end, rest = behind.partition(b"\r\n")
    for odd in ODD_VALUES:
        two.agree(head + name + odd + end + rest)
        two.agree(head + name[:-1] + odd + end + rest)
        for spelled in (
            name,
            name.lower(),
            name.upper(),
            name.title(),
            name.swapcase(),
            name[:-2] + b" : ",
            b" " + name,
        ):
            two.agree(head + spelled + odd + end + name + value + end + rest)
            two.agree(head + name + value + end + spelled + odd + end + rest)
            two.agree(head + spelled + value + end + rest)


LINES = (
    "{id}?wait=0.5 HTTP/1.0", "{id}?wait=0.5 HTTP/1.1 ", "{id}?wait=0.5", "{id} HTTP/1.1", "{id}", "{id}HTTP/1.1",
    "?{id:.31}?wait=0.5 HTTP/1.1", "{id:.31}", "{id:.23} HTTP/1.1", "{id:.23} HTTP/1.0", "{id:.22} HTTP/1.1 ",
    "{id:.31}\n?wait=0.5 HTTP/1.1", "{id:.31}\r?wait=0.5 HTTP/1.1", "{id:.31}\0?wait=0.5 HTTP/1.1",
    " {id:.31} HTTP/1.1",
    "{id:.31} ?wait=0.5 HTTP/1.1", "{id:.22} HTTP/1.1\n HTTP/1.1", "{id:.31}É HTTP/1.1", "{id:.31}/?wait=0.5 HTTP/1.1",
)  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_any_order_id_before_a_known_rest_is_answered_the_same(two: Two, line: str) -> None:
    """Stops: bytes in the place of an order's id, which varies, that make another request line of it."""
    for order_id in ("0" * 32, "f" * 32, "F" * 32):
        said = request("GET /v1/orders/" + line.format(id=order_id), [HOST, bearer()])
        two.agree(said, status())
        two.agree(said)
        two.agree(said + HIDDEN)


def test_shapes_are_forgotten_when_there_are_too_many(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: ever new heads that fill the memory of a worker, or a known one that is lost for good."""
    monkeypatch.setattr(plain, "_SHAPES_MOST", 3)
    assert two.fast.lane is not None
    for number in range(12):
        head = [HOST, (f"X-{number}", "a"), ("Idempotency-Key", "key-1")]
        taken, heard = two.taken(request("POST /v1/orders HTTP/1.1", head, order_body()), place())
        assert (taken, codes(heard.answers)) == (2, [201, 201])
        assert len(two.fast.lane.reader._shapes) <= 3
