"""Reading one HTTP/1.1 reply from bytes, without I/O (RFC 9112): strict where a mistake would lie.

A reply that is cut, ambiguous or beyond the limits is never guessed at: it raises, and what was asked stays
*unknown*. The common reply, head and body in one piece with a Content-Length, takes a microsecond: a server sends
the same head over and over (its Date changes once a second), so heads once read and found good are remembered,
byte for byte, and not read again.
"""

from __future__ import annotations

from typing import Final

HEAD_BYTES_MOST: Final = 16_384
HEADERS_MOST: Final = 100
BODY_BYTES_MOST: Final = 1_048_576  # the largest honest answer, 100 keys of 1 KiB, is a tenth of it
CHUNK_LINE_BYTES_MOST: Final = 1_024
INTERIM_MOST: Final = 4  # 1xx replies before the real one
HEADS_MOST: Final = 512  # remembered; a server whose heads never repeat costs a dict entry a reply, and no more
_HEAD_BYTES_KEPT: Final = 1_024
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


class MalformedReplyError(Exception):
    """The bytes are no HTTP/1.1 reply that can be read in one way only."""


class OversizeReplyError(Exception):
    """The reply's head or body is larger than the limits allow."""


_heads: dict[bytes, tuple[int, dict[bytes, bytes], bool, int]] = {}  # head -> status, headers, keep, length


def whole(data: bytes) -> tuple[int, dict[bytes, bytes], bytes, bool] | None:
    """Return (status, headers, body, keep) if these bytes are one whole reply with a head read before, else None.

    None says nothing about the bytes: give them to a ``ReplyReader``, which also remembers the head. The headers
    are shared by all replies with this head: read them, never change them.
    """
    end = data.find(b"\r\n\r\n")
    known = _heads.get(data[:end]) if end > 0 else None
    if known is None or len(data) - end - 4 != known[3]:
        return None
    return known[0], known[1], data[end + 4 :], known[2]


def _remember(head: bytes, known: tuple[int, dict[bytes, bytes], bool, int]) -> None:
    if len(_heads) >= HEADS_MOST:
        _heads.clear()
    _heads[head] = known


class ReplyReader:
    """Reads one reply. Feed it until it says it is whole; then ``status``, ``headers``, ``body`` stand."""

    __slots__ = (
        "_body_at",
        "_buffer",
        "_chunked",
        "_interim",
        "_length",
        "body",
        "headers",
        "keep",
        "status",
    )

    def __init__(self) -> None:
        """Begin before the reply's first byte."""
        self._buffer = b""
        self._body_at = -1  # where the body begins; -1: the head is not whole
        self._length = -1  # the body's length; -1: it ends with the connection
        self._chunked = False
        self._interim = 0
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.keep = False  # whether the connection may carry another request

    @property
    def begun(self) -> bool:
        """Return whether any byte of the reply has come."""
        return bool(self._buffer) or self._interim > 0

    def feed(self, data: bytes) -> bool:
        """Take the next bytes and return whether the reply is whole.

        Raises:
            MalformedReplyError: the bytes are no unambiguous reply.
            OversizeReplyError: the head or the body is too large.
        """
        self._buffer = self._buffer + data if self._buffer else data
        while self._body_at < 0:
            end = self._buffer.find(b"\r\n\r\n", 0, HEAD_BYTES_MOST + 4)
            if end < 0:
                if len(self._buffer) > HEAD_BYTES_MOST:
                    raise OversizeReplyError(f"the head is larger than {HEAD_BYTES_MOST} bytes")
                return False
            self._read_head(self._buffer[:end])
            if self.status >= 200:
                self._body_at = end + 4
            else:
                self._interim += 1
                if self._interim > INTERIM_MOST or self.status == 101:
                    raise MalformedReplyError(f"unexpected interim reply {self.status}")
                self._buffer = self._buffer[end + 4 :]
        return self._read_body()

    def end(self) -> bool:
        """Say that the peer closed, and return whether that completes the reply."""
        if self._body_at < 0 or self._chunked or self._length >= 0:
            return False
        self.body = self._buffer[self._body_at :]
        self.keep = False
        return True

    def _read_head(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        first = lines[0]
        if not (first[:7] == b"HTTP/1." and first[7:8] in (b"0", b"1") and first[8:9] == b" "):
            raise MalformedReplyError(f"no status line: {first[:40]!r}")
        if not (first[9:12].isdigit() and first[12:13] in (b" ", b"")):
            raise MalformedReplyError(f"no status: {first[:40]!r}")
        if len(lines) > HEADERS_MOST + 1:
            raise OversizeReplyError(f"more than {HEADERS_MOST} headers")
        if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
            raise MalformedReplyError("a bare CR or LF in the head")
        self.status = int(first[9:12])
        headers: dict[bytes, bytes] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise MalformedReplyError(f"no header: {line[:40]!r}")
            name, value = name.lower(), value.strip()
            if name in headers and headers[name] != value:
                if name in (b"content-length", b"transfer-encoding"):
                    raise MalformedReplyError("two different lengths")
                value = headers[name] + b", " + value
            headers[name] = value
        self.headers = headers
        self._read_framing(first[7:8] == b"1")
        if self._length >= 0 and self.status >= 200 and len(head) <= _HEAD_BYTES_KEPT:
            _remember(head, (self.status, headers, self.keep, self._length))

    def _read_framing(self, newer: bool) -> None:
        """Settle how long the body is and whether the connection goes on (RFC 9112, 6.3 and 9.3)."""
        headers = self.headers
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        connection = headers.get(b"connection", b"").lower()
        self.keep = b"close" not in connection and (newer or b"keep-alive" in connection)
        self._length, self._chunked = -1, False
        if coding is not None:
            if length is not None or coding.lower() != b"chunked":
                raise MalformedReplyError("Transfer-Encoding other than chunked, or beside a Content-Length")
            self._chunked = True
        elif length is not None:
            if not length.isdigit() or len(length) > 12:
                raise MalformedReplyError(f"Content-Length {length[:20]!r}")
            self._length = int(length)
            if self._length > BODY_BYTES_MOST:
                raise OversizeReplyError(f"the body is larger than {BODY_BYTES_MOST} bytes")
        if self.status in (204, 304):
            self._length, self._chunked = 0, False

    def _read_body(self) -> bool:
        if self._chunked:
            return self._read_chunks()
        held = len(self._buffer) - self._body_at
        if self._length < 0:
            if held > BODY_BYTES_MOST:
                raise OversizeReplyError(f"the body is larger than {BODY_BYTES_MOST} bytes")
            return False
        if held < self._length:
            return False
        self.body = self._buffer[self._body_at : self._body_at + self._length]
        if held > self._length:
            self.keep = False  # bytes nobody asked for: what they answer cannot be told
        return True

    def _read_chunks(self) -> bool:
        """Read the chunks from the start each time: replies are small, and no state can go wrong in between."""
        buffer, at, size_sum = self._buffer, self._body_at, 0
        parts: list[bytes] = []
        if len(buffer) - at > 2 * BODY_BYTES_MOST:
            raise OversizeReplyError("the chunks are larger than any answer")
        while True:
            line_end = buffer.find(b"\r\n", at)
            if line_end < 0 or line_end - at > CHUNK_LINE_BYTES_MOST:
                if len(buffer) - at > CHUNK_LINE_BYTES_MOST:
                    raise MalformedReplyError("a chunk's size line does not end")
                return False
            digits = buffer[at:line_end].partition(b";")[0].strip()
            if not digits or len(digits) > 8 or not _HEX.issuperset(digits):
                raise MalformedReplyError(f"chunk size {digits[:20]!r}")
            size, at = int(digits, 16), line_end + 2
            if size == 0:
                return self._read_trailers(at, parts)
            size_sum += size
            if size_sum > BODY_BYTES_MOST:
                raise OversizeReplyError(f"the body is larger than {BODY_BYTES_MOST} bytes")
            if len(buffer) < at + size + 2:
                return False
            if buffer[at + size : at + size + 2] != b"\r\n":
                raise MalformedReplyError("a chunk does not end where it should")
            parts.append(buffer[at : at + size])
            at += size + 2

    def _read_trailers(self, at: int, parts: list[bytes]) -> bool:
        """Skip the trailers; none of ours means anything."""
        buffer = self._buffer
        end = at + 2 if buffer[at : at + 2] == b"\r\n" else buffer.find(b"\r\n\r\n", at) + 4
        if end < at + 2:
            if len(buffer) - at > HEAD_BYTES_MOST:
                raise OversizeReplyError("the trailers are too large")
            return False
        self.body = b"".join(parts)
        if len(buffer) > end:
            self.keep = False
        return True
