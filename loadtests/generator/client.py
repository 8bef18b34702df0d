"""A lean keep-alive HTTP/1.1 client for gevent: one bounded pool of connections to one address.

A request is ready-made bytes, written in one send and read by ``http1.ReplyReader``. The client never sends
anything twice: a request that fails on a connection used before, even ahead of any byte of the reply, may
have been executed, so it is reported as it failed and the history calls it unknown. Idle connections that
the server has closed meanwhile are noticed *before* they are used.

Of what passes before a request is sent, two parts are told apart (``Reply``): the wait until a connection became free,
and the opening of one. All else, the wake-up after such a wait with it, is the generator's own lateness.

Cost: about 20 µs of CPU a request with many under way, most of it the kernel's send and recv.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.event import AsyncResult
from gevent.monkey import get_original
from gevent.socket import wait

from loadtests.generator import contract
from loadtests.generator.alarm import Urgent
from loadtests.generator.connection import Connection, Replies, Taker
from loadtests.generator.contract import Reply
from loadtests.generator.http1 import MalformedReplyError, OversizeReplyError, ReplyReader, whole
from loadtests.generator.stamps import EVERY

_WRITE: Final = 2  # libev's event bit
_SWEEP_S: Final = 0.05  # how exactly timeouts are kept
_NEVER_US: Final = 2**62
_LATE: Final = object()
_Socket = get_original("socket", "socket")  # plain: the waiting is done here, one watcher a connection


class RefusedError(Exception):
    """No connection could be made, so nothing was sent."""


class NoConnectionError(Exception):
    """Every connection of the pool stayed busy, so nothing was sent."""


class _Turn(AsyncResult):  # type: ignore[misc]  # gevent is untyped here
    """Someone who waits for a connection: gets one, or None for a bare slot, or ``_LATE``."""

    deadline_us = 0
    free_us = 0  # when what it gets became free; what passes from then on is the generator's doing


class Client:
    """Requests to one address over at most ``connections_most`` connections; the last used goes first."""

    def __init__(
        self,
        host: str,
        port: int,
        now_us: Callable[[], int],
        connections_most: int,
        connect_timeout_s: float = 3.0,
        urgent: Urgent | None = None,
    ) -> None:
        """Resolve the address once.

        Args:
            host: name or address of the shop.
            port: its TCP port.
            now_us: the run's clock, µs since its start.
            connections_most: the pool's bound; beyond it requests wait for a free connection.
            connect_timeout_s: how long a connection may take.
            urgent: what goes before the next reply when its time has come.

        Raises:
            OSError: the name cannot be resolved.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._family, self._address = found[0], found[4]
        self._now_us, self._most, self._connect_timeout_s = now_us, connections_most, connect_timeout_s
        self._urgent = urgent or Urgent()
        self._replies = Replies(self._urgent)
        self._idle: list[Connection] = []
        self._waiting: deque[_Turn] = deque()
        self._turns_due_us = _NEVER_US  # when the first of those who wait for a connection is to give up
        self._slots = 0  # connections open or being opened
        self._busy: set[Connection] = set()
        self._sweep_at_us = 0  # nobody is overdue before
        self._over = False
        self._sweeper: Any = gevent.get_hub().loop.timer(_SWEEP_S, _SWEEP_S)
        self._sweeper.start(self._sweep)
        self.waited = 0  # requests that found every connection busy
        self._begun = 0  # requests that got a connection

    def request(self, raw: bytes, timeout_s: float) -> Reply:
        """Send one request and return its reply, or why there is none; ``timeout_s`` bounds it all.

        Raises:
            gevent.GreenletExit: the run was cut off before this request began.
        """
        if self._over:
            raise gevent.GreenletExit
        idle = self._idle
        if idle and not idle[-1].spoke:  # the common case, in this frame
            connection, waited_us, connect_us = idle.pop(), 0, 0
            sent_us = self._now_us()
            connection.deadline_us = sent_us + int(timeout_s * 1e6)
        else:
            asked_us = self._now_us()
            deadline_us = asked_us + int(timeout_s * 1e6)
            try:
                connection, waited_us, connect_us = self._acquire(asked_us, timeout_s)
            except RefusedError:
                return Reply(0, self._now_us(), contract.REFUSED)
            except NoConnectionError:
                return Reply(0, self._now_us(), contract.NO_CONNECTION)
            except gevent.GreenletExit:
                self._over = True
                return Reply(0, self._now_us(), contract.CUT_EARLY)
            sent_us, connection.deadline_us = self._now_us(), deadline_us
        self._begin(connection)
        return self._finish(connection, raw, sent_us, waited_us, connect_us)

    @property
    def is_ready(self) -> bool:
        """Whether ``send_now`` finds a connection."""
        return bool(self._idle) and not self._idle[-1].spoke and not self._over

    def send_now(self, raw: bytes, timeout_s: float, asker: Taker) -> int:
        """Send one request in this very moment and return when that was; its reply is for ``asker``. In the hub.

        Returns:
            0 if nothing was sent: no connection is idle, or the run is over.
        """
        if not self.is_ready:
            return 0
        connection = self._idle.pop()
        asker.sent_us = sent_us = self._now_us()
        connection.deadline_us = sent_us + int(timeout_s * 1e6)
        self._begin(connection)
        connection.waiting, asker.connection = asker, connection
        try:
            sent = connection.sock.send(raw)
        except Exception:  # noqa: BLE001  # whoever sends it again meets the same, in a greenlet that can say so
            sent = 0
        if sent < len(raw):
            asker.hand_over(raw[sent:])
        return sent_us

    def take(self, connection: Connection) -> bytes:
        """Return what was read for a ``Taker`` and keep its connection for the next request.

        Nothing: this needs ``go_on``, for others wait, or the connection has come to its end. Only for replies that
        ask for no end of it and are whole; see ``http1.whole``.
        """
        if self._waiting or self._over or connection.ended:
            return b""
        connection.waiting = None
        self._busy.discard(connection)
        self._idle.append(connection)
        return connection.take()

    def go_on(self, connection: Connection, rest: bytes, sent_us: int) -> Reply:
        """Do in a greenlet what is left of a request that ``send_now`` sent but for ``rest``; see ``request``."""
        connection.waiting = None
        return self._finish(connection, rest, sent_us, 0, 0)

    def _begin(self, connection: Connection) -> None:
        self._begun += 1
        self._busy.add(connection)
        if connection.deadline_us < self._sweep_at_us:
            self._sweep_at_us = connection.deadline_us
        connection.look, connection.late_us = connection.stamped and not self._begun % EVERY, None

    def _finish(self, connection: Connection, rest: bytes, sent_us: int, waited_us: int, connect_us: int) -> Reply:
        error = ""
        try:
            status, headers, body, keep = self._exchange(connection, rest)
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
        self._busy.discard(connection)
        if error:
            done_us = self._now_us()
            self._discard(connection)
            return Reply(sent_us, done_us, error, waited_us=waited_us, connect_us=connect_us)
        done_us, late_us = connection.read_us, connection.late_us
        if not keep or connection.ended or self._over:
            self._discard(connection)
        elif self._waiting:
            self._release(connection, done_us)
        else:
            self._idle.append(connection)
        return Reply(sent_us, done_us, "", status, headers, body, waited_us, connect_us, late_us)

    def warm(self, count: int) -> None:
        """Open ``count`` connections one after the other, so that the first arrivals pay for none.

        Raises:
            RefusedError: the shop cannot be reached.
        """
        opened = []
        for _ in range(min(count, self._most)):
            opened.append(self._open(self._connect_timeout_s)[0])  # noqa: PERF401  # one after the other
        for connection in opened:
            self._release(connection)

    def close(self) -> None:
        """Close all idle connections; no request may begin any more."""
        self._over = True
        self._sweeper.close()
        self._replies.close()
        while self._idle:
            self._discard(self._idle.pop())

    def _exchange(self, connection: Connection, raw: bytes) -> tuple[int, dict[bytes, bytes], bytes, bool]:
        """Send and read; return the reply's (status, headers, body, whether the connection may be used again)."""
        sock = connection.sock
        sent = _send(sock, raw) if raw else 0
        while sent < len(raw):  # never seen with requests of this size, but a full buffer is not an error
            _wait_writable(sock, (connection.deadline_us - self._now_us()) / 1e6)
            sent += _send(sock, raw[sent:])
        reader: ReplyReader | None = None
        while True:
            data = connection.receive()
            if reader is None:
                found = whole(data)
                if found is not None:
                    return found
                reader = ReplyReader()
            if not data and not reader.end():
                raise EOFError
            if not data or reader.feed(data):
                return reader.status, reader.headers, reader.body, reader.keep

    def _sweep(self) -> None:
        """Expire what is overdue. A look every 50 ms is far cheaper than a timer a request, and at all of them only
        when the earliest deadline has come: most requests are long done by then.
        """
        now_us = self._now_us()
        if now_us >= self._turns_due_us:
            self._send_away(now_us)
        if now_us < self._sweep_at_us:
            return
        overdue = [connection for connection in self._busy if connection.deadline_us <= now_us]
        self._sweep_at_us = min((c.deadline_us for c in self._busy if c.deadline_us > now_us), default=_NEVER_US)
        for connection in overdue:
            if not connection.expire():  # still sending, against a clock of its own, or just read: look again
                self._sweep_at_us = 0

    def _send_away(self, now_us: int) -> None:
        """Let those give up who have waited for a connection until their deadline."""
        late = [turn for turn in self._waiting if turn.deadline_us <= now_us]
        self._waiting = deque(turn for turn in self._waiting if turn.deadline_us > now_us)
        self._turns_due_us = min((turn.deadline_us for turn in self._waiting), default=_NEVER_US)
        for turn in late:
            turn.set(_LATE)

    def _acquire(self, asked_us: int, timeout_s: float) -> tuple[Connection, int, int]:
        """Return a connection, the µs until one became free (or a slot for one), and the µs of opening it."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.spoke:
                return connection, 0, 0
            self._discard(connection)
        if self._slots < self._most:
            return self._opened(0, timeout_s)
        self.waited += 1
        turn = _Turn()
        turn.deadline_us = asked_us + int(timeout_s * 1e6)
        self._turns_due_us = min(self._turns_due_us, turn.deadline_us)
        self._waiting.append(turn)
        try:
            connection_or_slot = turn.get()
        except BaseException:
            if not turn.ready():
                self._waiting.remove(turn)
            elif turn.value is not _LATE:  # the turn came in the same moment: pass it on
                self._release(turn.value)
            raise
        if connection_or_slot is _LATE:
            raise NoConnectionError
        waited_us = max(0, turn.free_us - asked_us)  # read before it was asked for: all of it the generator's
        if connection_or_slot is not None:
            assert isinstance(connection_or_slot, Connection)
            return connection_or_slot, waited_us, 0
        self._slots -= 1  # a bare slot: open a connection of our own in it
        return self._opened(waited_us, timeout_s)

    def _opened(self, waited_us: int, timeout_s: float) -> tuple[Connection, int, int]:
        connection, connect_us = self._open(timeout_s)
        return connection, waited_us, connect_us

    def _open(self, timeout_s: float) -> tuple[Connection, int]:
        """Return a new connection and the µs from the first packet to the shop's kernel having taken it."""
        self._slots += 1
        sock = _Socket(self._family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began_us = self._now_us()
            _connect(sock, self._address, min(timeout_s, self._connect_timeout_s))
            connect_us = self._now_us() - began_us
        except BaseException as error:
            sock.close()
            self._release(None)
            if isinstance(error, OSError):
                raise RefusedError(str(error)) from error
            raise
        return Connection(sock, self._now_us, self._urgent, self._replies), connect_us

    def _release(self, connection: Connection | None, free_us: int = 0) -> None:
        """Give a connection, or with None its bare slot, to the next in turn; ``free_us``: free since, if not now."""
        if self._waiting:
            turn = self._waiting.popleft()
            turn.free_us = free_us or self._now_us()
            turn.set(connection)
        elif connection is not None:
            self._idle.append(connection)
        else:
            self._slots -= 1

    def _discard(self, connection: Connection) -> None:
        connection.close()
        self._release(None)


def _send(sock: socket.socket, raw: bytes) -> int:
    try:
        return sock.send(raw)
    except BlockingIOError:
        return 0


def _connect(sock: socket.socket, address: Any, timeout_s: float) -> None:
    said = sock.connect_ex(address)
    if said == errno.EINPROGRESS:  # with a peer on this machine the kernel has often shaken hands with itself by now
        said = sock.connect_ex(address)
    if said in (0, errno.EISCONN):
        return
    if said not in (errno.EINPROGRESS, errno.EALREADY):
        raise OSError(said, os.strerror(said))
    _wait_writable(sock, timeout_s)
    failed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, os.strerror(failed))


def _wait_writable(sock: socket.socket, left_s: float) -> None:
    if left_s <= 0:
        raise TimeoutError
    watcher = gevent.get_hub().loop.io(sock.fileno(), _WRITE)
    try:
        wait(watcher, left_s, TimeoutError())
    finally:
        watcher.close()
