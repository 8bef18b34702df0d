"""Lean HTTP clients: many connections in one process on one epoll, no object, task or timer a request.

Why not Locust: its buyers cost several times what the server does. Why not asyncio: at twenty thousand connections its
own turns would be a part of what is measured. An answer's instant is taken right after its bytes were read.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from core.errors import BadInput, Fault
from core.settings import FILES_KEPT

HOST: Final = "127.0.0.1"
_ANSWER_MOST: Final = 65_536
_PORTS_EACH: Final = 10_000  # connections from one source address; the kernel has some 28,000 ports for each


def raise_files(connections: int) -> None:
    """Let this process have so many connections; a worker of the shop sees to that by itself.

    Raises:
        BadInput: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + FILES_KEPT
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise BadInput(
            f"{connections:,} connections need {wanted:,} open files in one process, and the hard limit is {hard:,}; "
            f"raise it (ulimit -Hn {wanted}, as root or in limits.conf), or ask for {hard - FILES_KEPT:,} at most"
        )
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else hard, hard))


class Line:
    """One connection; ``about`` is the caller's."""

    __slots__ = ("about", "partial", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.partial = sock, b""
        self.about: Any = None

    def send(self, request: bytes) -> None:
        """Send one small request.

        Raises:
            Fault: the kernel did not take all of it.
        """
        if self.sock.send(request) != len(request):
            raise Fault("the kernel took only a part of a request")


class Arrived(NamedTuple):
    """A whole answer, and when its last byte was read: by the wall clock, in seconds."""

    line: Line
    raw: bytes
    at: float

    @property
    def status(self) -> int:
        """The answer's status."""
        return int(self.raw[9:12])

    @property
    def body(self) -> bytes:
        """The answer's body."""
        return self.raw[self.raw.index(b"\r\n\r\n") + 4 :]


class Client:
    """Connections to one server."""

    def __init__(self, port: int) -> None:
        """Open none yet."""
        self._port = port
        self._poll = select.epoll()
        self._lines: dict[int, Line] = {}

    def open(self) -> Line:
        """Return a new connection.

        Raises:
            OSError: the server does not take it.
        """
        sock = socket.socket()
        sock.settimeout(10.0)
        source = f"127.0.0.{1 + len(self._lines) // _PORTS_EACH}"
        sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        sock.bind((source, 0))
        sock.connect((HOST, self._port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        line = self._lines[sock.fileno()] = Line(sock)
        self._poll.register(sock.fileno(), select.EPOLLIN)
        return line

    def arrived(self, most_s: float) -> Iterator[Arrived]:
        """Wait up to ``most_s`` seconds for answers and return those that are whole.

        Raises:
            Fault: the server closed a connection or sent more than was asked for.
        """
        lines = self._lines
        for fd, _ in self._poll.poll(max(0.0, most_s)):
            line = lines[fd]
            data = line.sock.recv(_ANSWER_MOST)
            at = time.time()
            if not data:
                raise Fault("the server closed a connection on which an answer was due, or none")
            if line.partial:
                data, line.partial = line.partial + data, b""
            if _is_whole(data):
                yield Arrived(line, data, at)
            else:
                line.partial = data

    def close(self) -> None:
        """Close every connection."""
        for line in self._lines.values():
            line.sock.close()
        self._lines.clear()
        self._poll.close()


def _is_whole(data: bytes) -> bool:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    at = data.find(b"Content-Length: ", 0, end) + 16
    length = end + 4 + int(data[at : data.index(b"\r\n", at)])
    if len(data) > length:
        raise Fault("more than one answer came to one request")
    return len(data) == length
