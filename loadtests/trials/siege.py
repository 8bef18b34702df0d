"""Hostile clients: connections on which nothing comes, heads and bodies that dribble, answers nobody reads.

The number of open sockets of each kind is kept: whoever is cut off comes back, from one of many addresses. As a
process of its own it obeys lines on its standard input, ``begin`` and ``end``, and answers each ``end`` with a line of
JSON. Real attackers bring processors of their own. This one has what nobody else wants: it leads a session, which Linux
schedules as a group, and steps back with all of it (``SCHED_IDLE``, sched(7)); by a nice value among others of its
session it stood before the shop's processes as often as behind them. That all of its sockets are there is measured.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import socket
import sys
import time
from collections import deque
from itertools import cycle
from typing import Final

import msgspec

from core.errors import BadInput
from core.priority import step_back
from core.settings import (
    ANSWER_DEADLINE_S,
    BODY_DEADLINE_S,
    FIRST_BYTE_DEADLINE_S,
    HEAD_DEADLINE_S,
)
from loadtests.trials.answering import answer

TICK_S: Final = 0.02
DRIP_S: Final = 2.0  # between two bytes of a slow client
# How long a socket of each kind lives, or a little less. Opened as fast as they are cut off, they do not come and go in
# waves; a little faster, all of them are there. (A slow body is told after so long, and sees no later end.)
LIFE_S: Final = {
    "silent": FIRST_BYTE_DEADLINE_S,
    "slow_head": HEAD_DEADLINE_S,
    "slow_body": BODY_DEADLINE_S,
    "slow_read": ANSWER_DEADLINE_S,
}
NICENESS: Final = 19
_SPARE_FILES: Final = 64
_SOURCES: Final = 16  # addresses 127.0.1.1 and up: the ports of one would run out
_SMALL_BUFFER: Final = 4_096  # of who does not read
_ENDS: Final = select.EPOLLRDHUP  # a hang-up or a reset is told anyway

_HEAD: Final = b"POST /v1/orders HTTP/1.1\r\nHost: shop\r\nIdempotency-Key: siege\r\n"
_DRIP: Final = {"slow_head": b"x", "slow_body": b" "}
_FIRST: Final = {
    "silent": b"",
    "slow_head": _HEAD + b"X-Slow: ",
    "slow_body": _HEAD + b"Content-Length: 1000\r\n\r\n{",
    "slow_read": b"GET /openapi.json HTTP/1.1\r\nHost: shop\r\n\r\n" * 8,  # what does not fit into the kernel's buffers
}


class Fate(msgspec.Struct):
    """What became of one kind of hostile sockets."""

    opened: int = 0
    cut: int = 0
    refused: int = 0  # connections that could not be had
    held: int = 0  # open at the end of the siege
    oldest_s: float = 0.0  # from the connect to the end, or to the end of the siege for who was still open
    ages_s: float = 0.0  # of all who were cut
    answers: dict[str, int] = msgspec.field(default_factory=dict)  # statuses they were sent at the end


class _Socket:
    __slots__ = ("born", "end", "kind", "started")

    def __init__(self, kind: str, end: socket.socket, born: float) -> None:
        self.kind, self.end, self.born, self.started = kind, end, born, False


class Siege:
    """So many sockets of each kind, kept open against a server that cuts them off."""

    def __init__(self, host: str, port: int, numbers: dict[str, int]) -> None:
        """Take whom to besiege with how many of each kind: see ``LIFE_S``.

        Raises:
            BadInput: this process may not open so many files.
        """
        raise_files(sum(numbers.values()) + _SPARE_FILES)
        self._address, self._numbers = (host, port), numbers
        self._poll = select.epoll()
        self._open: dict[int, _Socket] = {}
        self._drips: deque[tuple[float, _Socket]] = deque()
        self._sources = cycle([f"127.0.1.{last}" for last in range(1, _SOURCES + 1)])
        self.fates = {kind: Fate() for kind in numbers}
        self._here = dict.fromkeys(numbers, 0)
        self._filled_at = 0.0
        self._due = dict.fromkeys(numbers, 0.0)  # connections that may be opened, and parts of one

    def begin(self) -> None:
        """Begin to open connections."""
        self._filled_at = time.monotonic()

    def step(self, until: float) -> None:
        """Open what is missing, drip, and see who was cut off, until the instant (monotonic seconds)."""
        self._fill()
        while True:
            now = time.monotonic()
            self._drip(now)
            if now >= until:
                return
            for fd, events in self._poll.poll(until - now):
                self._handle(self._open[fd], events)

    def end(self) -> dict[str, Fate]:
        """Leave; return what became of everybody, and begin to count anew."""
        now = time.monotonic()
        for one in list(self._open.values()):
            self.fates[one.kind].oldest_s = max(self.fates[one.kind].oldest_s, now - one.born)
            self.fates[one.kind].held += 1
            self._close(one)
        self._drips.clear()
        fates, self.fates = self.fates, {kind: Fate() for kind in self._numbers}
        return fates

    def _fill(self) -> None:
        now = time.monotonic()
        for kind, wanted in self._numbers.items():
            due = self._due[kind] + (now - self._filled_at) * wanted / LIFE_S[kind]
            number = min(int(due), wanted - self._here[kind])
            self._due[kind] = due - number if number == int(due) else 0.0
            for _ in range(number):
                self._connect(kind)
        self._filled_at = now

    def _connect(self, kind: str) -> None:
        end = socket.socket()
        end.setblocking(False)
        if kind == "slow_read":
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        with contextlib.suppress(OSError):  # elsewhere than on Linux 127.0.1.1 has to be set up first
            end.bind((next(self._sources), 0))
        code = end.connect_ex(self._address)
        if code not in (0, errno.EINPROGRESS):
            self.fates[kind].refused += 1
            end.close()
            return
        self._open[end.fileno()] = _Socket(kind, end, time.monotonic())
        self._here[kind] += 1
        self.fates[kind].opened += 1
        self._poll.register(end.fileno(), select.EPOLLOUT)

    def _handle(self, one: _Socket, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
            self._cut(one)
        elif not one.started:
            self._start(one)

    def _start(self, one: _Socket) -> None:
        """The connection stands: send the first bytes."""
        one.started, one.born = True, time.monotonic()  # what it has to be cut off for begins here
        try:
            one.end.send(_FIRST[one.kind])
        except OSError:
            self._cut(one)
            return
        self._poll.modify(one.end.fileno(), _ENDS)
        if one.kind in _DRIP:
            self._drips.append((time.monotonic() + DRIP_S, one))

    def _drip(self, now: float) -> None:
        drips = self._drips
        while drips and drips[0][0] <= now:
            _, one = drips.popleft()
            if one.end.fileno() < 0:
                continue
            try:
                one.end.send(_DRIP[one.kind])
            except OSError:
                self._cut(one)
            else:
                drips.append((now + DRIP_S, one))

    def _cut(self, one: _Socket) -> None:
        """The server has ended this connection."""
        fate = self.fates[one.kind]
        if not one.started:
            fate.refused += 1
            self._close(one)
            return
        age = time.monotonic() - one.born
        fate.cut += 1
        fate.ages_s += age
        fate.oldest_s = max(fate.oldest_s, age)
        if one.kind in _DRIP:
            with contextlib.suppress(OSError):
                status = one.end.recv(4_096)[9:12].decode("ascii", "replace") or "none"
                fate.answers[status] = fate.answers.get(status, 0) + 1
        self._close(one)

    def _close(self, one: _Socket) -> None:
        del self._open[one.end.fileno()]
        self._here[one.kind] -= 1
        one.end.close()


def raise_files(wanted: int) -> None:
    """See to it that this process may open so many files.

    Raises:
        BadInput: the system does not let it; the message says how many it does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise BadInput(
            f"{wanted:,} open files are needed and the hard limit is {hard:,} (`ulimit -Hn`): raise it first"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _step_behind_everybody() -> None:
    if os.getpid() != os.getsid(0):
        with contextlib.suppress(PermissionError):  # it leads its process group
            os.setsid()
    step_back(os.getpid(), NICENESS)
    if hasattr(os, "SCHED_IDLE"):  # Linux
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main() -> int:
    """Besiege when told to, until standard input ends."""
    host, port, numbers = sys.argv[1], int(sys.argv[2]), msgspec.json.decode(sys.argv[3], type=dict[str, int])
    siege = Siege(host, port, numbers)
    _step_behind_everybody()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    said = os.fdopen(0, "rb", buffering=0)
    besieging = False
    while True:
        if select.select([said], [], [], 0 if besieging else None)[0]:
            word = said.readline().strip()
            if word == b"":
                return 0
            besieging = word == b"begin"
            siege.begin()
            if word == b"end":
                answer(siege.end())
        if besieging:
            siege.step(time.monotonic() + TICK_S)


if __name__ == "__main__":
    sys.exit(main())
