"""HTTP/1.1 for the lane: is this exactly one whole, plain request, and what does it say; and answers as bytes.

*Plain* is narrow on purpose: one Host, no transfer coding, no ``Expect``, no upgrade, nothing folded, nothing that
aiohttp would judge by more than its presence. llhttp (httptools, the same parser family as aiohttp's own) checks the
grammar and the framing; whatever is not plain is aiohttp's to answer.

Why no callback per header: each costs a call into Python, and together they cost as much as the parse. What is needed
of the head is found by its name in a lower-case copy; a name that stands twice is not plain.

Why shapes are remembered: a client sends the same head over and over but for one value (its idempotency key, signature
or token). Where all bytes around that value are those of a head that was found plain before, and the value is
printable ASCII, grammar and framing are the same too, and nothing needs to be parsed again: 0.8 µs instead of 5.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from core.errors import Refusal
from core.web.problems import problem_body, problem_headers, retry_after_s

HEAD_MOST: Final = 4_096  # bytes of a head the lane looks at; aiohttp's own limits stand behind it
_LINES_MOST: Final = 60
_END: Final = b"\r\n\r\n"
_ODD: Final = re.compile(
    rb"\r\n(?:[ \t]|transfer-encoding|content-encoding|connection(?!: keep-alive\r\n)|expect|upgrade|trailer|te:"
    rb"|server|etag|content-location|content-range|max-forwards|sec-websocket|proxy-connection|http2-settings)"
)
_TWICE: Final = (b"\r\ncontent-type:", b"\r\nuser-agent:", b"\r\ncontent-length:")


_SHAPES_MOST: Final = 1_000  # honest clients of one shop send a handful


class Shape(NamedTuple):
    """The head seen last of a kind of request, around what varies in it."""

    before: bytes  # what stands between ``Varying.start`` and the value
    after: bytes  # what stands behind the value, to the head's end
    body_bytes: int


class Varying:
    """What differs between the requests of one client: the bytes before ``start``, and one header's value."""

    __slots__ = ("last", "name", "spellings", "start")

    def __init__(self, start: int, name: str) -> None:
        """Take a header's name; heads that spell it in another way are read in full each time."""
        self.start, self.name = start, name.lower().encode()
        spelled = dict.fromkeys((name.title(), name, name.lower()))
        self.spellings = tuple([f"\r\n{one}:".encode() for one in spelled])  # as it stands in a head
        self.last = Shape(b"\0", b"\0", 0)  # fits nothing


class PlainReader:
    """Reads plain requests. One a worker: nothing of a connection is kept between two requests."""

    __slots__ = ("_bodies", "_ends", "_parser", "_shapes", "body", "data", "head")

    def __init__(self) -> None:
        """Begin with a fresh parser."""
        self.data = self.head = self.body = b""
        self._shapes: dict[bytes, int] = {}  # a plain head without what varies -> its Content-Length
        self.renew()

    def renew(self) -> None:
        """Take a fresh parser."""
        self._parser = HttpRequestParser(self)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body (llhttp's call)."""
        self.body = body
        self._bodies += 1

    def on_message_complete(self) -> None:
        """Count a whole request (llhttp's call)."""
        self._ends += 1

    def read(self, data: bytes) -> bool:
        """Say whether ``data`` is exactly one whole, plain request; then ``head`` and ``body`` are set.

        ``head`` is in lower case, begins with the request line and ends with a line's end.
        """
        end = data.find(_END)
        if not 0 < end <= HEAD_MOST:
            return False
        head = data[: end + 2].lower()
        if _ODD.search(head) or head.count(b"\r\nhost:") != 1 or head.count(b"\r\n") > _LINES_MOST:
            return False
        for name in _TWICE:
            if head.count(name) > 1:
                return False
        self.body, self._bodies, self._ends = b"", 0, 0
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.renew()
            return False
        # Exactly one: the lengths must meet, or what follows is another request, or the rest of this one is missing.
        if self._ends != 1 or self._bodies > 1 or end + 4 + len(self.body) != len(data):
            self.renew()
            return False
        self.data, self.head = data, head
        return True

    def recall(self, data: bytes, varying: Varying) -> str | None:
        """Return the varying value if ``data`` is a whole request of a known shape, else None; ``body`` is set.

        The caller has looked at the bytes before ``varying.start``.
        """
        # The shape seen last is compared in place; looking any up takes a copy of all but the value, and its hash.
        before, after, length = varying.last
        begin = varying.start + len(before)
        stop = data.find(b"\r\n", begin, HEAD_MOST - len(after))
        if not (
            data.startswith(before, varying.start)
            and data.startswith(after, stop)
            and len(data) == stop + len(after) + length
        ):
            return self._recall_any(data, varying)
        value = data[begin:stop].strip(b" \t").decode("latin-1")
        if not (value.isascii() and value.isprintable()):
            return None
        self.data, self.body = data, data[stop + len(after) :]
        return value

    def _recall_any(self, data: bytes, varying: Varying) -> str | None:
        end = data.find(_END)
        if not varying.start <= end <= HEAD_MOST:
            return None
        begin, stop = _value_at(data, end, varying)
        length = self._shapes.get(data[varying.start : begin] + data[stop : end + 4])
        if length is None or len(data) != end + 4 + length:
            return None
        value = data[begin:stop].strip(b" \t").decode("latin-1")
        if not (value.isascii() and value.isprintable()):
            return None
        self.data, self.body = data, data[end + 4 :]
        varying.last = Shape(data[varying.start : begin], data[stop : end + 4], length)
        return value

    def remember(self, varying: Varying) -> None:
        """Know the shape of the request just read, whose header ``varying.name`` stands once."""
        data, end = self.data, len(self.head) - 2
        begin, stop = _value_at(data, end, varying)
        if begin != self.head.find(b"\r\n%b:" % varying.name) + len(varying.name) + 3:
            return  # spelled in another way
        if len(self._shapes) >= _SHAPES_MOST:
            self._shapes.clear()
        self._shapes[data[varying.start : begin] + data[stop : end + 4]] = len(self.body)

    def header(self, name: bytes) -> str | None:
        """Return a header's value; ``name`` in lower case. '' if it is missing, None if it is not plain.

        Not plain is what stands twice or is not ASCII.
        """
        sought = b"\r\n%b:" % name
        at = self.head.find(sought)
        if at < 0:
            return ""
        begin = at + len(sought)
        end = self.head.find(b"\r\n", begin)
        if self.head.find(sought, end) >= 0:
            return None
        value = self.data[begin:end].strip(b" \t")
        return value.decode("ascii") if value.isascii() else None


def _value_at(data: bytes, end: int, varying: Varying) -> tuple[int, int]:
    """Return where the varying value begins and stops, or (0, 0)."""
    for spelled in varying.spellings:
        at = data.find(spelled, varying.start, end)
        if at >= 0:
            begin = at + len(spelled)
            return begin, data.find(b"\r\n", begin)
    return 0, 0


class Answers:
    """Whole answers as bytes. The head of each is made once a second, because of its Date."""

    def __init__(self) -> None:
        self._second = 0
        self._date = b""
        self._heads: dict[tuple[int, int], bytes] = {}  # by status and length of the body
        self._refusals: dict[tuple[type[Refusal], int | None], bytes] = {}

    def ok(self, status: int, body: bytes) -> bytes:
        """Return an answer with a JSON body."""
        return self.head(status, len(body)) + body

    def head(self, status: int, length: int) -> bytes:
        """Return the head of an answer with a JSON body of ``length`` bytes."""
        if int(time.time()) != self._second:
            self._tick()
        sought = status, length
        head = self._heads.get(sought)
        if head is None:
            head = self._heads[sought] = b"%bContent-Length: %d\r\n\r\n" % (
                self._head(status, "application/json", {}),
                length,
            )
        return head

    def refused(self, refusal: Refusal | type[Refusal], again_s: int | None = None) -> bytes:
        """Return the answer of a refusal; a class stands for its general message, and its bytes are made once.

        ``again_s``: its Retry-After, if that is known.
        """
        if int(time.time()) != self._second:
            self._tick()
        if isinstance(refusal, type):
            key = refusal, again_s or retry_after_s(refusal)
            return self._refusals.get(key) or self._refusals.setdefault(key, self._refused(*key))
        return self._refused(refusal, None)

    def _refused(self, refusal: Refusal | type[Refusal], again_s: int | None) -> bytes:
        body = problem_body(refusal)
        head = self._head(refusal.status, "application/problem+json", problem_headers(refusal, again_s))
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)

    def _head(self, status: int, content_type: str, headers: dict[str, str]) -> bytes:
        said = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{said}Content-Type: {content_type}\r\n"
        return first.encode("ascii") + self._date

    def _tick(self) -> None:
        self._second = int(time.time())
        self._date = f"Date: {formatdate(self._second, usegmt=True)}\r\n".encode("ascii")
        self._heads.clear()
        self._refusals.clear()


def closing(answer: bytes) -> bytes:
    """Return the same answer, saying that the connection ends with it."""
    return answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
