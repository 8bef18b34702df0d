"""The load of ``overload``: buyers at a rate, whatever becomes of them, over many connections; the refused come back.

One process, one core, epoll and no more than must be done, so that it can ask for many times what a server sells. A
buyer who finds no connection free is not sent and counted as such: each connection carries one request at a time, and a
server that is in no hurry to answer is in that way asked for less. Latency is from the sending of a request.
"""

from __future__ import annotations

import gc
import heapq
import random
import resource
import select
import socket
import sys
import time
from array import array
from collections import deque
from typing import Final

import msgspec

from benchmarks.ceiling.asks import HOST, HOT, Spec, asks
from benchmarks.ceiling.driver import cpu_ns
from loadtests.trials.answering import answer

BUCKET_S: Final = 0.5
HONOUR, IGNORE = "honour", "ignore"  # the Retry-After
TRIES: Final = {HONOUR: 3, IGNORE: 10}
_IGNORING_S: Final = 0.1
_JITTER_S: Final = 0.5  # beyond the Retry-After
_TOLD_S: Final = 2.0
_READ_BYTES: Final = 16_384
_STALL_S: Final = 10.0
_CONNECT_MOST_S: Final = 60.0
_LOOK: Final = f"GET /v1/products/{HOT} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


class Phase(msgspec.Struct, frozen=True):
    """So many new buyers a second for so long; rate 0: as many as there are connections free.

    ``whole``: the rate is that of all requests; buyers who return are part of it, and new ones fill what they leave.
    """

    name: str
    rate: float
    seconds: float
    whole: bool = False


class Plan(msgspec.Struct, frozen=True):
    """What one driver does."""

    port: int
    connections: int
    first: int  # number of the first order
    secret: str  # base64, of the deployment
    phases: list[Phase]
    watch: list[int]  # processes of the shop whose processor time is told
    manners: str = HONOUR


class Bucket(msgspec.Struct):
    """Half a second of answers."""

    accepted: int = 0
    refused: int = 0
    accepted_p99_ms: float = 0.0


class Told(msgspec.Struct):
    """What one phase showed."""

    name: str
    began_s: float = 0.0  # on the monotonic clock
    seconds: float = 0.0
    asked: int = 0  # new buyers; in a phase of a whole rate those who returned too
    sent: int = 0  # requests, those of returning buyers among them
    unsent: int = 0  # new buyers who found no connection free
    gave_up: int = 0  # buyers refused for the last time
    waiting: int = 0  # for their answer at the end of it
    returning: int = 0  # buyers who will come again, at the end of it
    again_s: float = 0.0  # the longest Retry-After
    accepted: int = 0
    refused: int = 0
    others: dict[str, int] = {}
    accepted_ms: list[float] = []  # p50, p99, greatest
    refused_ms: list[float] = []
    driver_share: float = 0.0  # of one core
    shop_share: float = 0.0
    buckets: list[Bucket] = []


class Done(msgspec.Struct):
    """All phases, and the number of the next order."""

    phases: list[Told]
    next: int


def _shares(took: array[float]) -> list[float]:
    ordered = sorted(took)
    if not ordered:
        return [0.0, 0.0, 0.0]
    return [1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99, 1.0)]


class _Measured:
    """A phase while it runs."""

    def __init__(self, phase: Phase) -> None:
        self.told = Told(phase.name, others={}, buckets=[])
        self.accepted, self.refused = array("d"), array("d")
        self._bucket, self._bucket_took = Bucket(), array("d")

    def close_bucket(self) -> None:
        self._bucket.accepted_p99_ms = _shares(self._bucket_took)[1]
        self.told.buckets.append(self._bucket)
        self._bucket, self._bucket_took = Bucket(), array("d")

    def accept(self, took_s: float) -> None:
        self._bucket.accepted += 1
        self._bucket_took.append(took_s)
        self.accepted.append(took_s)

    def refuse(self, took_s: float) -> None:
        self._bucket.refused += 1
        self.refused.append(took_s)

    def end(self, seconds: float, own_s: float, shop_s: float) -> Told:
        told = self.told
        told.seconds, told.driver_share, told.shop_share = seconds, own_s / seconds, shop_s / seconds
        told.accepted, told.refused = len(self.accepted), len(self.refused)
        told.accepted_ms, told.refused_ms = _shares(self.accepted), _shares(self.refused)
        return told


class Flood:
    """The buyers and their connections."""

    def __init__(self, plan: Plan) -> None:
        self._ask = asks(Spec(plan.port, "order", 0, 0, 0.0, 0, 0, 201, plan.secret, "", {}), 0)
        self._next, self._tries = plan.first, TRIES[plan.manners]
        self._plan = plan
        self._random = random.Random(plan.first)
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._free: deque[int] = deque()
        self._asked: dict[int, tuple[float, int, int]] = {}  # by connection: sent at, order's number, tries left
        self._partial: dict[int, bytes] = {}
        self._returning: list[tuple[float, int, int]] = []

    def connect(self) -> None:
        """Open the connections, and ask once on each: a small server needs seconds to take two thousand.

        Raises:
            TimeoutError: it has not taken them all within ``_CONNECT_MOST_S``.
        """
        for _ in range(self._plan.connections):
            sock = socket.create_connection((HOST, self._plan.port), 10.0)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._socks[sock.fileno()] = sock
            self._poll.register(sock.fileno(), select.EPOLLIN)
            sock.send(_LOOK)
        until = time.monotonic() + _CONNECT_MOST_S
        while len(self._free) < len(self._socks):
            if time.monotonic() > until:
                raise TimeoutError(f"only {len(self._free):,} connections were taken within {_CONNECT_MOST_S:g} s")
            for fd, _ in self._poll.poll(0.1):
                if self._whole(fd):
                    self._free.append(fd)

    def run(self) -> Done:
        """Go through all phases, one after the other; who is refused in one may return in the next."""
        return Done([self._phase(phase) for phase in self._plan.phases], self._next)

    def _phase(self, phase: Phase) -> Told:
        measured = _Measured(phase)
        own_s, shop_ns, began = time.process_time(), cpu_ns(self._plan.watch), time.monotonic()
        measured.told.began_s = began
        until, bucket_at, tell_at = began + phase.seconds, began + BUCKET_S, began
        heard = began
        while (now := time.monotonic()) < until:
            if now >= bucket_at:
                measured.close_bucket()
                bucket_at += BUCKET_S
            if now >= tell_at:
                tell_at += _TOLD_S
                sys.stderr.write(
                    f"    {phase.name:<16} {now - began:4.1f} s  accepted {len(measured.accepted):,}"
                    f"  refused {len(measured.refused):,}  returning {len(self._returning):,}\n"
                )
            self._send_due(phase, measured.told, now, began)
            ready = self._poll.poll(0.001)
            if ready:
                heard = now
                self._hear(ready, measured)
            elif self._asked and now - heard > _STALL_S:
                raise TimeoutError(f"no answer for {_STALL_S:g} s")
        seconds, measured.told.waiting = time.monotonic() - began, len(self._asked)
        measured.told.returning = len(self._returning)
        return measured.end(seconds, time.process_time() - own_s, (cpu_ns(self._plan.watch) - shop_ns) / 1e9)

    def _send_due(self, phase: Phase, told: Told, now: float, began: float) -> None:
        free, returning = self._free, self._returning
        while free and returning and returning[0][0] <= now:
            _, number, tries = heapq.heappop(returning)
            self._send(free.popleft(), number, tries, told)
            told.asked += phase.whole
        due = max(0, int((now - began) * phase.rate) - told.asked) if phase.rate else len(free)
        sent = min(due, len(free))
        for _ in range(sent):
            self._send(free.popleft(), self._next, self._tries, told)
            self._next += 1
        told.asked += due
        told.unsent += due - sent

    def _send(self, fd: int, number: int, tries: int, told: Told) -> None:
        self._asked[fd] = (time.monotonic(), number, tries)
        self._socks[fd].send(self._ask(number))
        told.sent += 1

    def _hear(self, ready: list[tuple[int, int]], measured: _Measured) -> None:
        for fd, _ in ready:
            data = self._whole(fd)
            if not data:
                continue
            now = time.monotonic()
            sent_at, number, tries = self._asked.pop(fd)
            self._free.append(fd)
            status = data[9:12]
            if status in (b"201", b"200"):
                measured.accept(now - sent_at)
            elif status == b"503" and b"X-Outcome: not-executed" in data:
                measured.refuse(now - sent_at)
                again_s = _retry_after_s(data)
                measured.told.again_s = max(measured.told.again_s, again_s)
                if tries > 1:
                    heapq.heappush(self._returning, (now + self._stays_away_s(again_s), number, tries - 1))
                else:
                    measured.told.gave_up += 1
            else:
                word = status.decode("latin-1")
                measured.told.others[word] = measured.told.others.get(word, 0) + 1

    def _whole(self, fd: int) -> bytes:
        """Return an answer; empty: it is not whole yet."""
        data = self._socks[fd].recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("the server closed a connection")
        if self._partial:
            data = self._partial.pop(fd, b"") + data
        end = data.find(b"\r\n\r\n")
        at = data.find(b"Content-Length: ")
        if end < 0 or len(data) < end + 4 + int(data[at + 16 : data.index(b"\r", at)]):
            self._partial[fd] = data
            return b""
        return data

    def _stays_away_s(self, again_s: int) -> float:
        if self._plan.manners == IGNORE:
            return self._random.uniform(0, _IGNORING_S)
        return again_s + self._random.uniform(0, _JITTER_S)


def _retry_after_s(answer: bytes) -> int:
    begin = answer.index(b"Retry-After: ") + 13
    return int(answer[begin : answer.index(b"\r", begin)])


def main() -> None:
    """Read a plan from the first argument, drive, and write what was seen."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()
    flood = Flood(plan)
    flood.connect()
    answer(flood.run())


if __name__ == "__main__":
    main()
