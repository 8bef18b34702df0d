"""A lean keep-alive HTTP/1.1 client for gevent: one bounded pool of connections to one address.

A request is ready-made bytes, written in one send and read by ``http1.ReplyReader``. The client never sends
anything twice: a request that fails on a connection used before, even ahead of any byte of the reply, may
have been executed, so it is reported as it failed and the history calls it unknown. Idle connections that
the server has closed meanwhile are noticed *before* they are used.

Cost: about 35 µs of CPU a request, most of it gevent's switch, send and recv.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import AsyncResult
from gevent.monkey import get_original
from gevent.socket import wait

from loadtests import contract
from loadtests.contract import Reply
from loadtests.http1 import MalformedReplyError, OversizeReplyError, ReplyReader

_READ, _WRITE = 1, 2  # libev's event bits
_RECEIVE_BYTES: Final = 65_536
_TRUST_IDLE_NS: Final = 500_000_000  # an idle connection older than this is looked at before use
_Socket = get_original(
    "socket", "socket"
)  # plain: the waiting is done here, with one watcher kept a connection


class RefusedError(Exception):
    """No connection could be made, so nothing was sent."""


class NoConnectionError(Exception):
    """Every connection of the pool stayed busy, so nothing was sent."""


class Connection:
    """One TCP connection and its watchers."""

    __slots__ = ("idle_ns", "readable", "sock", "writable")

    def __init__(self, sock: socket.socket) -> None:
        """Take a connected, non-blocking plain socket."""
        loop = gevent.get_hub().loop
        self.sock = sock
        self.readable: Any = loop.io(sock.fileno(), _READ)
        self.writable: Any = loop.io(sock.fileno(), _WRITE)
        self.idle_ns = 0

    def is_quiet(self) -> bool:
        """Return whether the peer has neither closed nor said anything unasked."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close the watchers, then the socket."""
        self.readable.close()
        self.writable.close()
        self.sock.close()


class Client:
    """Requests to one address over at most ``connections_most`` connections; the last used goes first."""

    def __init__(
        self,
        host: str,
        port: int,
        now_us: Callable[[], int],
        connections_most: int,
        connect_timeout_s: float = 3.0,
    ) -> None:
        """Resolve the address once.

        Args:
            host: name or address of the shop.
            port: its TCP port.
            now_us: the run's clock, µs since its start.
            connections_most: the pool's bound; beyond it requests wait for a free connection.
            connect_timeout_s: how long a connection may take.

        Raises:
            OSError: the name cannot be resolved.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._family, self._address = found[0], found[4]
        self._now_us, self._most, self._connect_timeout_s = now_us, connections_most, connect_timeout_s
        self._idle: list[Connection] = []
        self._waiting: deque[AsyncResult] = deque()
        self._slots = 0  # connections open or being opened
        self._over = False
        self.waited = 0  # requests that found every connection busy

    def request(self, raw: bytes, timeout_s: float) -> Reply:
        """Send one request and return its reply, or why there is none; ``timeout_s`` bounds it all.

        Raises:
            gevent.GreenletExit: the run was cut off before this request began.
        """
        if self._over:
            raise gevent.GreenletExit
        deadline = time.monotonic() + timeout_s
        try:
            connection = self._acquire(timeout_s)
        except RefusedError:
            return Reply(0, self._now_us(), contract.REFUSED)
        except NoConnectionError:
            return Reply(0, self._now_us(), contract.NO_CONNECTION)
        except gevent.GreenletExit:
            self._over = True
            return Reply(0, self._now_us(), contract.CUT_EARLY)
        reader = ReplyReader()
        sent_us = self._now_us()
        error = ""
        try:
            self._exchange(connection, raw, reader, deadline)
        except TimeoutError:
            error = contract.TIMEOUT
        except EOFError:
            error = contract.CLOSED
        except OSError:
            error = contract.RESET
        except MalformedReplyError:
            error = contract.MALFORMED
        except OversizeReplyError:
            error = contract.OVERSIZE
        except gevent.GreenletExit:
            self._over, error = True, contract.CUT_OFF
        done_us = self._now_us()
        if error or not reader.keep or self._over:
            self._discard(connection)
        else:
            connection.idle_ns = time.monotonic_ns()
            self._release(connection)
        if error:
            return Reply(sent_us, done_us, error)
        return Reply(sent_us, done_us, "", reader.status, reader.headers, reader.body)

    def warm(self, count: int) -> None:
        """Open ``count`` connections one after the other, so that the first arrivals pay for none.

        Raises:
            RefusedError: the shop cannot be reached.
        """
        opened = []
        for _ in range(min(count, self._most)):
            connection = self._open(self._connect_timeout_s)
            connection.idle_ns = time.monotonic_ns()
            opened.append(connection)
        for connection in opened:
            self._release(connection)

    def close(self) -> None:
        """Close all idle connections; no request may begin any more."""
        self._over = True
        while self._idle:
            self._discard(self._idle.pop())

    def _exchange(self, connection: Connection, raw: bytes, reader: ReplyReader, deadline: float) -> None:
        sock = connection.sock
        sent = 0
        while True:
            with contextlib.suppress(BlockingIOError):
                sent += sock.send(raw[sent:] if sent else raw)
            if sent == len(raw):
                break
            _wait(connection.writable, deadline)
        while True:
            _wait(connection.readable, deadline)
            try:
                data = sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                continue
            if not data:
                if reader.end():
                    return
                raise EOFError
            if reader.feed(data):
                return

    def _acquire(self, timeout_s: float) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            fresh = time.monotonic_ns() - connection.idle_ns < _TRUST_IDLE_NS
            if fresh or connection.is_quiet():
                return connection
            self._discard(connection)
        if self._slots < self._most:
            return self._open(timeout_s)
        self.waited += 1
        turn = AsyncResult()
        self._waiting.append(turn)
        try:
            connection_or_slot = turn.get(timeout=timeout_s)
        except BaseException as error:
            if turn.ready():  # the turn came in the same moment: pass it on
                self._release(turn.value)
            else:
                self._waiting.remove(turn)
            if isinstance(error, gevent.Timeout):
                raise NoConnectionError from error
            raise
        if connection_or_slot is not None:
            assert isinstance(connection_or_slot, Connection)
            return connection_or_slot
        self._slots -= 1  # a bare slot: open a connection of our own in it
        return self._open(timeout_s)

    def _open(self, timeout_s: float) -> Connection:
        self._slots += 1
        sock = _Socket(self._family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock)
        try:
            try:
                sock.connect(self._address)
            except BlockingIOError:
                _wait(connection.writable, time.monotonic() + min(timeout_s, self._connect_timeout_s))
                failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failed:
                    raise OSError(failed, "connect") from None
        except OSError as error:
            self._discard(connection)
            raise RefusedError(str(error)) from error
        except BaseException:
            self._discard(connection)
            raise
        return connection

    def _release(self, connection: Connection | None) -> None:
        """Give a connection, or with None its bare slot, to the next in turn."""
        if self._waiting:
            self._waiting.popleft().set(connection)
        elif connection is not None:
            self._idle.append(connection)
        else:
            self._slots -= 1

    def _discard(self, connection: Connection) -> None:
        connection.close()
        self._release(None)


def _wait(watcher: Any, deadline: float) -> None:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    wait(watcher, left_s, TimeoutError())
