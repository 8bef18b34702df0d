"""Where a new connection waits until it has said something: a socket, a few bytes, and nothing of the server's yet.

A connection inside (a transport, aiohttp's protocol with its parser and its task) costs some 150 µs to make and to end
and 15 KiB to keep, a body that never comes a request and a task beside. Thousands of clients that come, send a byte
every other second and never ask took a third of a core, which honest buyers noticed. Here such a one costs an entry and
a few system calls. Whoever has sent a whole head is let in with it (an order with its body too), and so is everybody
of whom this room cannot be sure: it looks only how a plain head begins, where it ends and how long its body shall be,
judges nothing, and hands on every byte as it came.

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
from typing import Final

from core.errors import BodyTimeout, FlashproofError, Refusal
from core.settings import BODY_MOST, HEAD_MOST
from core.telemetry import CUTS, REFUSALS
from core.web.deadlines import Deadlines
from core.web.plain import Answers, closing

RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset and forgets what was not read
_AT_ONCE_MOST: Final = 64  # read in one turn of the loop
_READ_BYTES: Final = 65_536  # as the loop's own
_BEGINS: Final = re.compile(rb"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) /")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_END: Final = b"\r\n\r\n"
_ORDER: Final = b"POST /v1/orders HTTP/1.1\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]{1,4})\r\n")
_ODD: Final = re.compile(rb"\r\n(?:transfer-encoding|expect|upgrade)")


class Newcomer:
    """One connection in the porch; a debtor of its first byte, then of its head, then of its body."""

    __slots__ = ("_porch", "address", "connection", "data", "told", "whole")

    def __init__(self, porch: Porch, connection: socket.socket, address: str) -> None:
        self._porch, self.connection, self.address = porch, connection, address
        self.data = b""
        self.whole = 0  # bytes of its order, head and body; 0 as long as that is not known
        self.told = False  # why it has to go

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
    ) -> None:
        """``let_in`` takes a connection, its address and what it said; ``lost`` hears whose connection was closed."""
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
        self._here[connection.fileno()] = newcomer
        self._epoll.register(connection, select.EPOLLIN)
        if not newcomer.data:
            self._deadlines.first_byte.enter(newcomer)

    def close(self) -> None:
        """Let everybody in who is here, and take nobody any more."""
        for newcomer in list(self._here.values()):
            if newcomer.told:
                self._end(newcomer)
            else:
                self._go_in(newcomer)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def cut(self, newcomer: Newcomer, why: type[FlashproofError]) -> None:
        """End a connection; say why, if that is an answer to something."""
        if newcomer.told:
            self._end(newcomer)
            return
        CUTS.add(why.code)
        with contextlib.suppress(OSError):  # it may be gone already
            if issubclass(why, Refusal):
                REFUSALS.add(why.code)
                newcomer.connection.send(closing(self._answers.refused(why)))
            else:
                newcomer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if why is BodyTimeout:  # more of it may be on its way, and closing on it would be a reset: RFC 9112, 9.6
                newcomer.connection.shutdown(socket.SHUT_WR)
                newcomer.told = True
                self._deadlines.leaving.enter(newcomer)
                return
        self._end(newcomer)

    def _ready(self) -> None:
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
        before, newcomer.data = len(newcomer.data), newcomer.data + data
        if self._may_wait(newcomer, before):
            return False
        self._go_in(newcomer)
        return True

    def _may_wait(self, newcomer: Newcomer, before: int) -> bool:
        """Say whether what came is surely no whole request yet; ``before`` bytes of it were looked at before."""
        data = newcomer.data
        if newcomer.whole:
            return len(data) < newcomer.whole
        if len(data) > HEAD_MOST or (not before and _BEGINS.match(data) is None):
            return False
        if _BARE_LF.search(data, max(0, before - 1)) is not None:
            return False
        end = data.find(_END, max(0, before - 3))
        if end < 0:
            if not before:
                self._deadlines.first_byte.leave(newcomer)
                self._deadlines.head.enter(newcomer)
            return True
        newcomer.whole = _bytes_of_order(data, end + len(_END))
        if len(data) >= newcomer.whole:
            return False
        self._deadlines.forget(newcomer)
        self._deadlines.body.enter(newcomer)
        return True

    def _go_in(self, newcomer: Newcomer) -> None:
        self._forget(newcomer)
        self._let_in(newcomer.connection, newcomer.address, newcomer.data)

    def _end(self, newcomer: Newcomer) -> None:
        self._forget(newcomer)
        newcomer.connection.close()
        self._lost(newcomer.address)

    def _forget(self, newcomer: Newcomer) -> None:
        if self._here.pop(newcomer.connection.fileno(), None) is not None:
            self._epoll.unregister(newcomer.connection)
        self._deadlines.forget(newcomer)


def _bytes_of_order(data: bytes, head: int) -> int:
    """Return how long a plain order is, of whose bytes ``head`` are its head's; 0: it is none, or not plain."""
    if not data.startswith(_ORDER):
        return 0
    lower = data[:head].lower()
    length = _LENGTH.search(lower)
    if length is None or lower.count(b"\r\ncontent-length") != 1 or _ODD.search(lower) is not None:
        return 0
    body = int(length[1])
    return head + body if body <= BODY_MOST else 0
