"""The load of the ceiling: closed loops on keep-alive connections, one process, one core, no more than it must do.

Why not the harness's Locust user: nginx and a bare protocol answer faster than it can ask, and the rows would all show
the driver. Why not wrk: it does not look at the answers it counts. This loop checks the status and the length of every
answer, and a row with a wrong one is no row. Its own ceiling is among the output (the ``nginx`` row's driver share).
"""

from __future__ import annotations

import select
import socket
import sys
import time
from itertools import count
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.ceiling.asks import HOST, Ask, Spec, asks

_WARM_S: Final = 0.2
_ANSWER_MOST: Final = 65_536
_STALL_S: Final = 5.0  # no answer for so long: the row failed


class Done(msgspec.Struct, frozen=True):
    """What one window showed. Processor times in µs, by the names of ``Spec.watch``."""

    answers: int
    seconds: float
    wrong: dict[str, int]  # statuses that were not expected
    cpu_us: dict[str, float]
    driver_share: float  # of one core
    next: int  # number of the first request that was not sent


def cpu_ns(pids: list[int]) -> int:
    """Return the processor time of processes and their threads, in ns (``schedstat``; ticks would be too coarse)."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


class Loop:
    """Many connections, one request under way on each."""

    def __init__(self, spec: Spec, ask: Ask) -> None:
        self._spec, self._ask = spec, ask
        self._numbers = count(spec.first)
        self.sent_most = spec.first + spec.most
        self.next = spec.first
        self._expected = b"HTTP/1.1 %d" % spec.expect
        self._length = 0  # of the last whole answer that was read by its head
        self.answers, self.wrong = 0, dict[str, int]()
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._partial: dict[int, bytes] = {}

    def connect(self) -> None:
        """Open the connections."""
        for _ in range(self._spec.connections):
            sock = socket.create_connection((HOST, self._spec.port), 5.0)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._socks[sock.fileno()] = sock
            self._poll.register(sock.fileno(), select.EPOLLIN)

    def begin(self) -> None:
        """Send the first request on every connection."""
        for sock in self._socks.values():
            self._send(sock)

    def run(self, until: float) -> bool:
        """Answer and ask until the instant (monotonic seconds); return False when the requests have run out."""
        poll, socks, expected, partial = self._poll.poll, self._socks, self._expected, self._partial
        while time.monotonic() < until:
            ready = poll(_STALL_S)
            if not ready:
                raise TimeoutError(f"no answer for {_STALL_S:g} s")
            for fd, _ in ready:
                sock = socks[fd]
                data = sock.recv(_ANSWER_MOST)
                if not data:
                    raise ConnectionResetError("the server closed a connection")
                # The common case first: one whole answer, as long as the one before it.
                if (len(data) != self._length or not data.startswith(expected) or partial) and not self._whole(
                    fd, data
                ):
                    continue
                self.answers += 1
                self._send(sock)
            if self.next >= self.sent_most:
                return False
        return True

    def _whole(self, fd: int, data: bytes) -> bool:
        """Take a part of an answer; return whether it is whole now."""
        data = self._partial.pop(fd, b"") + data
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            head = data[:end].lower() + b"\r\n"
            at = head.index(b"content-length:") + 15
            length = end + 4 + int(head[at : head.index(b"\r\n", at)])
            if len(data) == length:
                status = data[9:12].decode()
                if status == str(self._spec.expect):
                    self._length = length
                else:
                    self.wrong[status] = self.wrong.get(status, 0) + 1
                return True
            if len(data) > length:
                raise ValueError("more than one answer to one request")
        self._partial[fd] = data
        return False

    def _send(self, sock: socket.socket) -> None:
        number = self.next
        self.next = number + 1
        sock.send(self._ask(number))

    def close(self) -> None:
        """Close every connection."""
        for sock in self._socks.values():
            sock.close()
        self._poll.close()


def drive(spec: Spec) -> Done:
    """Load a server for one window and return what it did.

    Raises:
        OSError, ValueError: the server did not answer as a server does.
    """
    loop = Loop(spec, asks(spec, int(time.time())))
    loop.connect()
    loop.begin()
    loop.run(time.monotonic() + _WARM_S)
    warm = loop.answers
    before = {name: cpu_ns(pids) for name, pids in spec.watch.items()}
    own, began = time.process_time(), time.monotonic()
    loop.run(began + spec.seconds)
    seconds = time.monotonic() - began
    share = (time.process_time() - own) / seconds
    after = {name: cpu_ns(pids) for name, pids in spec.watch.items()}
    loop.close()
    cpu_us = {name: (after[name] - before[name]) / 1000 for name in spec.watch}
    return Done(loop.answers - warm, seconds, loop.wrong, cpu_us, share, loop.next)


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(drive(msgspec.json.decode(sys.argv[1], type=Spec))).decode() + "\n")
