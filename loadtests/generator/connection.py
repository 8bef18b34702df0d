"""One connection of the load generator: read as soon as the loop hears of it, handed to who asked a moment later.

Replies come in crowds, for a shop answers a batch at once. If each were worked through before the next is read, the
last of a hundred would seem ten milliseconds later than it was. So the loop first reads all that has come and notes
when (that is the end of a request's latency), and then lets those who asked go on, for half a millisecond at a time,
between two looks at what has come meanwhile.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import gevent

from loadtests.generator.alarm import Urgent
from loadtests.generator.stamps import ask_for_stamps, receive

_READ: Final = 1  # libev's event bit
_RECEIVE_BYTES: Final = 8_192  # more than an answer; what is longer comes in pieces
_HAND_OUT_NS: Final = 500_000  # how long the askers may go on until the loop looks again


class Replies:
    """Connections whose bytes were read and whose askers are still to go on, the first read first."""

    def __init__(self, urgent: Urgent) -> None:
        """Begin with none; ``urgent`` goes before each."""
        loop: Any = gevent.get_hub().loop
        self._urgent = urgent
        self._queue: deque[Connection] = deque()
        self._check: Any = loop.check(ref=False, priority=loop.MINPRI)  # after every read of the same turn
        self._check.start(self._hand_out)
        self._idle: Any = loop.idle(ref=False)  # while it is active, the loop does not wait for more
        self._left = False
        self.append = self._queue.append

    def close(self) -> None:
        """Hand out no more."""
        self._check.close()
        self._idle.close()

    def _hand_out(self) -> None:
        queue, urgent, now_ns = self._queue, self._urgent, time.monotonic_ns
        if not queue:
            return
        at_ns = now_ns()
        until_ns = at_ns + _HAND_OUT_NS
        while queue and at_ns < until_ns:
            if at_ns >= urgent.at_ns:
                urgent.ring()
            connection = queue.popleft()
            connection.queued = False
            if connection.waiting is not None:
                connection.waiting.switch()
            at_ns = now_ns()
        if bool(queue) is not self._left:
            self._left = not self._left
            if self._left:
                urgent.left += 1
                self._idle.start(_nothing)
            else:
                urgent.left -= 1
                self._idle.stop()


def _nothing() -> None:
    """Do nothing: an idle watcher needs something to call."""


class Taker(Protocol):
    """Who waits for a reply without a greenlet: spoken to like one, in the hub.

    It waits for nothing and raises nothing; what it cannot do so, it has a greenlet do.
    """

    connection: Connection
    sent_us: int

    def switch(self) -> None:
        """Go on: something was read, or nothing more will come."""

    def throw(self, error: Exception) -> None:
        """Give up."""

    def hand_over(self, rest: bytes) -> None:
        """Have a greenlet go on, which first sends ``rest``."""


class Connection:
    """One TCP connection, watched from its first to its last moment.

    The watcher is never stopped between requests: that saves an epoll_ctl and three allocations a request, and
    a server that closes an idle connection is noticed when it happens.
    """

    __slots__ = (
        *("_error", "_hub", "_now_us", "_replies", "_urgent", "_watcher"),
        *(
            "data",
            "deadline_us",
            "ended",
            "late_us",
            "look",
            "queued",
            "read_us",
            "sock",
            "spoke",
            "stamped",
            "waiting",
        ),
    )

    def __init__(self, sock: socket.socket, now_us: Callable[[], int], urgent: Urgent, replies: Replies) -> None:
        """Take a connected, non-blocking plain socket, the run's clock, and what goes before its reply."""
        self._hub, self._now_us, self._urgent, self._replies = gevent.get_hub(), now_us, urgent, replies
        self.sock = sock
        self.stamped = ask_for_stamps(sock)
        self.deadline_us = 0
        self.data = b""  # read, and not yet taken
        self.waiting: Any = None  # who waits for bytes: a greenlet or a ``Taker``
        self.spoke = False  # bytes or an end came while nobody waited
        self.queued = False  # bytes were read, and who waits for them is not yet told
        self.ended = False  # nothing more will come
        self.read_us = 0  # when something was last read
        self.look = False  # whether the kernel is asked for how long it lay there
        self.late_us: int | None = None  # what it said
        self._error: OSError | None = None
        self._watcher: Any = self._hub.loop.io(sock.fileno(), _READ)
        self._watcher.start(self._readable)

    def receive(self) -> bytes:
        """Let others run until something was read, and return it; nothing: the peer has closed.

        Raises:
            TimeoutError: the deadline came first.
            OSError: the connection is broken.
        """
        if self.spoke:
            self.spoke = False
            self._watcher.start(self._readable)
        if not self.data and not self.ended:
            self.waiting = gevent.getcurrent()
            try:
                self._hub.switch()
            finally:
                self.waiting = None
        data = self.take()
        if not data and self._error is not None:
            raise self._error
        return data

    def take(self) -> bytes:
        """Return what was read."""
        data, self.data = self.data, b""
        return data

    def expire(self) -> bool:
        """Raise TimeoutError in whoever waits, and return whether somebody did whose reply is not read already.

        Called by the loop itself, never by a greenlet.
        """
        if self.waiting is None or self.queued:
            return False
        self.waiting.throw(TimeoutError())
        return True

    def close(self) -> None:
        """Close the watcher, then the socket."""
        self._watcher.close()
        self.sock.close()

    def _readable(self) -> None:
        if self.waiting is None:
            self.spoke = True
            self._watcher.stop()
        else:
            self._read()
        if time.monotonic_ns() >= self._urgent.at_ns:
            self._urgent.ring()

    def _read(self) -> None:
        try:
            if self.look:
                data, self.late_us = receive(self.sock, _RECEIVE_BYTES)
            else:
                data = self.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            data, self._error = b"", error
        self.read_us = self._now_us()
        if data:
            self.data = self.data + data if self.data else data
        else:
            self.ended = True
            self._watcher.stop()
        if not self.queued:
            self.queued = True
            self._replies.append(self)
