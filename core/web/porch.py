"""Where a new connection waits until it has said something: a socket, a few bytes, and nothing of the server's yet.

A connection inside (a transport, aiohttp's protocol with its parser and its task) costs some 150 µs to make and to end
and 15 KiB to keep, a body that never comes a request and a task beside. Thousands of clients that come, send a byte
every other second and never ask took a third of a core, which honest buyers noticed. Here such a one costs an entry and
a few system calls. Whoever has sent a whole head is let in with it (an order with its body too), and so is at once
whoever sends what is not plainly the beginning of a well-formed one: that is aiohttp's to judge, in its own words. This
room refuses nothing but lateness, and hands on every byte as it came.

One epoll holds them all, and the loop watches that: an entry there costs a tenth of a watcher of the loop's own.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
from asyncio import AbstractEventLoop
from collections.abc import Callable
from functools import partial
from typing import Final

from core.errors import BodyTimeout, FlashproofError, Refusal
from core.settings import BODY_MOST, HEAD_MOST
from core.telemetry import CUTS, REFUSALS, log
from core.web.deadlines import Deadlines, Debt
from core.web.lane import HOT
from core.web.leisure import Leisure
from core.web.plain import Answers, closing

RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset and forgets what was not read
_MORE_COMES: Final = getattr(socket, "MSG_MORE", 0)  # where there is epoll there is this
_AT_ONCE_MOST: Final = 64  # read in one turn of the loop
_READ_BYTES: Final = 65_536  # as the loop's own
_METHODS: Final = b"GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS"
_BEGINS: Final = tuple(method + b" /" for method in _METHODS.split(b"|"))
_LINE_MOST: Final = 4_096
_FIRST_LINE: Final = re.compile(rb"(?:%b) /[!-~]* HTTP/1\.[01]" % _METHODS)
_HEADER_LINE: Final = re.compile(rb"([-!#$%&'*+.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)")
_FIRST_PART: Final = re.compile(
    rb"(?:%b) /[!-~]*(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[01]\r?)?)?)?)?)?)?)?)?)?" % _METHODS
)
_HEADER_PART: Final = re.compile(rb"\r?|[-!#$%&'*+.^_`|~0-9A-Za-z]+(?::[\t -~\x80-\xff]*\r?)?")
_NUMBER: Final = re.compile(rb" *[0-9]{1,4} *")
# aiohttp judges these by more than their presence; the first ones if they stand twice.
_ONCE: Final = frozenset(b"host content-type content-length user-agent".split())
_ODD: Final = frozenset(
    b"transfer-encoding content-encoding connection expect upgrade trailer te server etag content-location"
    b" content-range max-forwards proxy-connection http2-settings".split()
)
_ORDER: Final = b"POST /v1/orders HTTP/1.1\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+) *\r\n")


class Newcomer:
    """One connection in the porch; a debtor of its first byte, then of its head, then of its body."""

    __slots__ = ("_porch", "address", "connection", "data", "debt", "line", "told", "whole")

    def __init__(self, porch: Porch, connection: socket.socket, address: str) -> None:
        self._porch, self.connection, self.address = porch, connection, address
        self.data = b""
        self.line = 0  # where the line begins that is not whole yet
        self.whole = 0  # bytes of its order, head and body; 0 as long as that is not known
        self.told = False  # why it has to go
        self.debt: Debt | None = None  # the one it owes

    def owe(self, debt: Debt | None) -> None:
        """Owe this and nothing else; who owes it already is given no more time."""
        if debt is not self.debt:
            if self.debt is not None:
                self.debt.leave(self)
            if debt is not None:
                debt.enter(self)
            self.debt = debt

    def cut(self, why: type[FlashproofError]) -> None:
        """End the connection; say why, if that is an answer to something."""
        self._porch.cut(self, why)


class Porch:
    """Those who have come to one worker and not asked yet."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        deadlines: Deadlines,
        let_in: Callable[[socket.socket, str, bytes], None],
        lost: Callable[[str], None],
        leisure: Leisure,
    ) -> None:
        """``let_in`` takes a connection, its address and what it said; ``lost`` hears whose connection was closed."""
        self._leisure = leisure
        self._loop, self._deadlines, self._let_in, self._lost = loop, deadlines, let_in, lost
        self._answers = Answers()
        self._here: dict[int, Newcomer] = {}
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self._ready)

    def enter(self, connection: socket.socket, address: str) -> None:
        """Take a new connection, non-blocking; let it in at once if it has asked already, as honest clients have."""
        newcomer = Newcomer(self, connection, address)
        if self._read(newcomer):
            return
        try:
            self._epoll.register(connection, select.EPOLLIN)
        except OSError as error:  # the kernel has no room to watch one more
            log("error", "cannot_watch", error=error, why=error.strerror)
            self._end(newcomer)
            return
        self._here[connection.fileno()] = newcomer
        if not newcomer.data:
            newcomer.owe(self._deadlines.first_byte)

    def close(self) -> None:
        """Let everybody in who is here, and take nobody any more."""
        for newcomer in list(self._here.values()):
            if newcomer.told:
                self._end(newcomer)
            else:
                self._go_in(newcomer)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._leisure.finish()

    def cut(self, newcomer: Newcomer, why: type[FlashproofError]) -> None:
        """End a connection; say why, if that is an answer to something."""
        if newcomer.told:
            self._end(newcomer)
            return
        CUTS.add(why.code)
        with contextlib.suppress(OSError):  # it may be gone already
            if issubclass(why, Refusal):
                REFUSALS.add(why.code)
                # Held back until the end, so that both leave in one packet: half of what a cut costs. The end is said
                # by itself, for closing on bytes that were not read would forget what is held back.
                newcomer.connection.send(closing(self._answers.refused(why)), _MORE_COMES)
                newcomer.connection.shutdown(socket.SHUT_WR)
            else:
                newcomer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if why is BodyTimeout:  # more of it may be on its way, and closing on it would be a reset: RFC 9112, 9.6
                newcomer.told = True
                newcomer.owe(self._deadlines.leaving)
                return
        self._end(newcomer)

    def _ready(self) -> None:
        """Read what came. Not by a share of the turn: who has asked is among them, in a sale's first second all are."""
        for descriptor, _ in self._epoll.poll(0, _AT_ONCE_MOST):
            newcomer = self._here.get(descriptor)
            if newcomer is not None:
                self._read(newcomer)

    def _read(self, newcomer: Newcomer) -> bool:
        """Read what has come; return whether the connection is here no more."""
        try:
            data = newcomer.connection.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._end(newcomer)
            return True
        if newcomer.told:
            return False
        newcomer.data += data
        if self._may_wait(newcomer):
            return False
        self._go_in(newcomer)
        return True

    def _may_wait(self, newcomer: Newcomer) -> bool:
        """Say whether what came is plainly no whole request yet, and see to it that the rest is owed."""
        data = newcomer.data
        if newcomer.whole:
            return len(data) < newcomer.whole
        head = _bytes_of_head(newcomer)
        if head < 0:
            return False
        if head == 0:
            newcomer.owe(self._deadlines.head)
            return True
        newcomer.whole = _bytes_of_order(data, head)
        if len(data) >= newcomer.whole:
            return False
        newcomer.owe(self._deadlines.body)
        return True

    def _go_in(self, newcomer: Newcomer) -> None:
        if self._forget(newcomer):
            with contextlib.suppress(OSError):
                self._epoll.unregister(newcomer.connection)
        data = newcomer.data
        go_in = partial(self._let_in, newcomer.connection, newcomer.address, data)
        if data.startswith(HOT):
            go_in()
        else:
            self._leisure.do(go_in)

    def _end(self, newcomer: Newcomer) -> None:
        self._forget(newcomer)
        newcomer.connection.close()  # the kernel takes it out of the epoll: nobody else holds it
        self._lost(newcomer.address)

    def _forget(self, newcomer: Newcomer) -> bool:
        """Return whether it stood here, and not only at the door."""
        newcomer.owe(None)
        return self._here.pop(newcomer.connection.fileno(), None) is not None


def _bytes_of_head(newcomer: Newcomer) -> int:
    """Return how long the head is; 0: it is plain so far, and not whole; -1: it is not plain.

    A line that is whole is looked at once; the one that is not again with every read, as far as it goes.
    """
    data = newcomer.data
    while (end := data.find(b"\r\n", newcomer.line)) >= 0:
        begin, newcomer.line = newcomer.line, end + 2
        if end == begin:
            return newcomer.line if begin else -1
        if not (_is_plain_header(data, begin, end) if begin else _FIRST_LINE.fullmatch(data, begin, end)):
            return -1
    if len(data) > HEAD_MOST or len(data) - newcomer.line > _LINE_MOST:
        return -1
    part = _HEADER_PART if newcomer.line else _FIRST_PART
    if part.fullmatch(data, newcomer.line) or (not newcomer.line and any(one.startswith(data) for one in _BEGINS)):
        return 0
    return -1


def _is_plain_header(data: bytes, begin: int, end: int) -> bool:
    line = _HEADER_LINE.fullmatch(data, begin, end)
    if line is None:
        return False
    name = line[1].lower()
    if name in _ONCE:
        return b"\r\n%b:" % name not in data[:begin].lower() and (
            name != b"content-length" or _NUMBER.fullmatch(line[2]) is not None
        )
    return name not in _ODD and not name.startswith(b"sec-websocket")


def _bytes_of_order(data: bytes, head: int) -> int:
    """Return how long an order is, of whose bytes the first ``head`` are its plain head; 0: it is none."""
    if not data.startswith(_ORDER):
        return 0
    lower = data[:head].lower()
    length = _LENGTH.search(lower)
    if length is None or b"\r\nhost:" not in lower or int(length[1]) > BODY_MOST:
        return 0
    return head + int(length[1])
