"""Reading replies: any cut gives the same reply, and what can be read in two ways is not read at all."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.generator import http1
from loadtests.generator.http1 import BODY_BYTES_MOST, MalformedReplyError, OversizeReplyError, ReplyReader, whole

PLAIN = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n" + b'{"a":"b c d"}'
CHUNKED = (
    b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=1\r\n{"a":\r\n8\r\n"b c d"}\r\n0\r\nTrailer: 1\r\n\r\n'
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN


@given(st.sampled_from([PLAIN, CHUNKED, INTERIM]), st.lists(st.integers(0, 200), max_size=12))
def test_a_reply_cut_anywhere_is_the_same_reply(raw: bytes, cuts: list[int]) -> None:
    reader = ReplyReader()
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[a:b] for a, b in pairwise(edges)]
    ends = [reader.feed(piece) for piece in pieces]
    assert ends == [False] * (len(pieces) - 1) + [True]
    assert reader.body == b'{"a":"b c d"}'
    assert reader.status in (200, 201)
    assert reader.keep


def test_a_reply_without_a_length_ends_with_the_connection() -> None:
    reader = ReplyReader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\n\r\nabc")
    assert reader.end()
    assert (reader.body, reader.keep) == (b"abc", False)


@pytest.mark.parametrize("raw", [PLAIN[:-1], CHUNKED[:-2], PLAIN[:20]])
def test_a_cut_reply_is_not_whole(raw: bytes) -> None:
    reader = ReplyReader()
    assert not reader.feed(raw)
    assert not reader.end()


@pytest.mark.parametrize("line", [b"Connection: close", b"connection:  Close"])
def test_connection_close_is_honoured(line: bytes) -> None:
    reader = ReplyReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + line + b"\r\n\r\n")
    assert not reader.keep


def test_http_1_0_closes_unless_it_says_otherwise_and_unasked_bytes_end_the_connection() -> None:
    old = ReplyReader()
    assert old.feed(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert not old.keep
    more = ReplyReader()
    assert more.feed(PLAIN + b"HTTP/1.1 200")
    assert not more.keep


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nabcde\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\n" * 9,
    ],
)
def test_an_ambiguous_reply_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedReplyError):
        ReplyReader().feed(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 20_000,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (BODY_BYTES_MOST + 1),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * (BODY_BYTES_MOST + 1),
    ],
)
def test_a_reply_beyond_the_limits_is_refused(raw: bytes) -> None:
    with pytest.raises(OversizeReplyError):
        ReplyReader().feed(raw)


def test_a_reply_with_a_known_head_is_read_the_same_and_anything_else_is_left_to_the_reader() -> None:
    """The memory of heads must never see a whole reply where the reader would see none."""
    head, body = b"HTTP/1.1 409 Conflict\r\nX-Outcome: not-executed\r\nContent-Length: 4", b"\r\n\r\n"
    reply = head + b"\r\n\r\n" + body
    assert whole(reply) is None
    reader = ReplyReader()
    assert reader.feed(reply)
    assert whole(reply) == (reader.status, reader.headers, reader.body, reader.keep) == (409, ANY, body, True)
    for cut in range(len(reply)):
        assert whole(reply[:cut]) is None, cut
    assert whole(reply + b"x") is None
    assert whole(head + b"\r") is None
    assert whole(b"") is None


def test_heads_without_a_length_and_interim_heads_are_not_remembered() -> None:
    for head, rest in (
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
        (b"HTTP/1.1 100 Continue\r\nContent-Length: 0", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ):
        assert ReplyReader().feed(head + b"\r\n\r\n" + rest)
        assert whole(head + b"\r\n\r\n") is None


def test_a_server_whose_heads_never_repeat_fills_no_memory() -> None:
    for number in range(3 * http1.HEADS_MOST):
        assert ReplyReader().feed(b"HTTP/1.1 200 OK\r\nX-Id: %d\r\nContent-Length: 0\r\n\r\n" % number)
    assert len(http1._heads) <= http1.HEADS_MOST
