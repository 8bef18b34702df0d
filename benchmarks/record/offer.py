"""Orders straight to Valkey through the shop's own script, and when their journal entries were committed.

The *lag* of an entry is the time from the entry's own id (milliseconds of Valkey's clock, given when the order was
accepted) to the moment at which a reader of Valkey finds the journal's mark ``trimmed`` beyond it. The projector moves
that mark after PostgreSQL's commit, in the call that also wakes buyers. So this is an upper bound of the time to the
commit: it holds the settling call, and up to one look's interval, in addition. All clocks are this machine's.

Nobody but this writes to the journal meanwhile, so an entry's number within its millisecond can be counted.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import hiredis
import msgspec

from benchmarks.record.requests import buyer, key
from benchmarks.record.stage import HOLD_MS, SKU
from core.backends.valkey import ROOT
from core.errors import Fault
from core.ids import Names, fingerprint
from core.sale.orders.answers import PLACE_ANSWERS
from core.sale.orders.store import PLACE, PlaceItem, pack_places

LOOK_S: Final = 0.002  # how often the mark is read
_DEPTH: Final = 4  # calls under way while a backlog is made
_STALL_S: Final = 10.0
_MARK: Final[Any] = ("HGET", f"{ROOT}:meta", "trimmed")
_LOOK: Final = bytes(hiredis.pack_command(_MARK))


class Wire:
    """A blocking connection to Valkey on which calls may be pipelined."""

    def __init__(self, url: str) -> None:
        """Connect to a ``unix://`` address."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_STALL_S)
        self.sock.connect(url.removeprefix("unix://").partition("?")[0])
        self._reader = hiredis.Reader(replyError=ValueError, notEnoughData=...)

    def read(self) -> Any:
        """Return the next reply.

        Raises:
            ValueError: it is an error. OSError: none came.
        """
        while (reply := self._reader.gets()) is ...:
            data = self.sock.recv(65_536)
            if not data:
                raise ConnectionResetError("Valkey closed the connection")
            self._reader.feed(data)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def take(self) -> list[Any]:
        """Return the replies that have come, once the socket can be read.

        Raises:
            ValueError: one is an error. OSError: the connection is closed.
        """
        replies = [self.read()]
        while (reply := self._reader.gets()) is not ...:
            if isinstance(reply, Exception):
                raise reply
            replies.append(reply)
        return replies

    def ask(self, *command: Any) -> Any:
        """Send a command and return its reply."""
        self.sock.sendall(hiredis.pack_command(command))
        return self.read()

    def close(self) -> None:
        """Hang up."""
        self.sock.close()


class Offered(msgspec.Struct, frozen=True):
    """What one window of an open schedule showed."""

    orders: int
    seconds: float  # from the first call to the last
    lags_s: list[float]  # one an entry; entries are equally large
    late_s: float  # by how much the driver was late at worst
    drained_s: float  # from the last call until all was committed


class Call(NamedTuple):
    """One call, as it goes over the wire, and how many orders it places."""

    packed: bytes
    orders: int


class Offer:
    """Places numbered orders, in calls of one journal entry each."""

    def __init__(self, url: str, names: Names, first: int) -> None:
        """Connect to a ``unix://`` address; ``names`` of the deployment, ``first`` the number of the first order."""
        self._calls_wire, self._look_wire, self._names = Wire(url), Wire(url), names
        self._epoch = self._calls_wire.ask("HGET", f"{ROOT}:meta", "epoch")
        self._calls_wire.ask("SCRIPT", "LOAD", PLACE.source)
        self._last = (0, -1)  # id of the entry written last
        self.next = first  # number of the next order

    def close(self) -> None:
        """Hang up."""
        self._calls_wire.close()
        self._look_wire.close()

    def prepare(self, orders: int, batch: int) -> list[Call]:
        """Return the calls that place so many new orders."""
        first, self.next = self.next, self.next + orders
        return [self._call(range(number, min(number + batch, self.next))) for number in range(first, self.next, batch)]

    def _call(self, numbers: range) -> Call:
        kind = (SKU, fingerprint(SKU, 1), 1)
        items = [PlaceItem(self._names.order_id(buyer(n), key(n)), buyer(n), kind) for n in numbers]
        command: Any = ("EVALSHA", PLACE.sha, 1, ROOT, self._epoch, pack_places(items))
        return Call(bytes(hiredis.pack_command(command)), len(numbers))

    def _accepted(self, reply: bytes) -> tuple[int, int]:
        """Return a call's entry, by its answer."""
        answers, said, *_ = PLACE_ANSWERS.decode(reply)
        if [answer.outcome for answer in answers] != ["accepted"] or said != [1]:
            raise Fault(f"orders were not accepted: {answers[:3]}")
        ms = answers[0].pay_by_ms - HOLD_MS  # the instant of the call, which names the entry too
        self._last = (ms, self._last[1] + 1 if ms == self._last[0] else 0)
        return self._last

    def fill(self, calls: Sequence[Call], still: Callable[[int], None]) -> int:
        """Make the calls as fast as Valkey takes them; return how many orders were accepted."""
        orders, coming = 0, iter(calls)
        for call in islice(coming, _DEPTH):
            self._calls_wire.sock.sendall(call.packed)
        for call in calls:
            self._accepted(self._calls_wire.read())
            orders += call.orders
            still(orders)
            following = next(coming, None)
            if following is not None:
                self._calls_wire.sock.sendall(following.packed)
        return orders

    def trimmed(self) -> tuple[int, int]:
        """Return the first entry that PostgreSQL has not committed."""
        return _mark(self._look_wire.ask(*_MARK))

    def wait_committed(self, most_s: float, still: Callable[[], None]) -> float:
        """Wait until all that was placed is committed; return how long that took.

        Raises:
            Fault: it is not within ``most_s`` seconds.
        """
        began = time.monotonic()
        while self.trimmed() <= self._last:
            if time.monotonic() - began > most_s:
                raise Fault(f"the projector did not follow within {most_s:.0f} s")
            still()
            time.sleep(LOOK_S)
        return time.monotonic() - began

    def offer(
        self, calls: Sequence[Call], interval_s: float, most_s: float, still: Callable[[int, float], None]
    ) -> Offered:
        """Make a call every ``interval_s``, whatever comes back, and watch what is committed; then wait for the rest.

        Raises:
            Fault: what was placed last is not committed ``most_s`` seconds after the last call.
        """
        poll, calls_fd, look_fd = select.poll(), self._calls_wire.sock.fileno(), self._look_wire.sock.fileno()
        poll.register(calls_fd, select.POLLIN)
        poll.register(look_fd, select.POLLIN)
        open_entries: deque[tuple[int, int]] = deque()
        lags: list[float] = []
        began = time.monotonic()
        sent = answered = orders = 0
        late = ended = 0.0
        look_at, looking = began, False
        while answered < len(calls) or open_entries:
            now = time.monotonic()
            if sent < len(calls) and now >= began + sent * interval_s:
                late = max(late, now - began - sent * interval_s)
                self._calls_wire.sock.sendall(calls[sent].packed)
                sent, ended = sent + 1, now
                continue
            if sent == len(calls) and now - ended > most_s:
                raise Fault(
                    f"the projector did not follow: {len(open_entries)} entries open {most_s:.0f} s after the last"
                )
            if not looking and now >= look_at:
                self._look_wire.sock.sendall(_LOOK)
                looking, look_at = True, now + LOOK_S
                continue
            due = min(began + sent * interval_s if sent < len(calls) else now + 1, now + 1 if looking else look_at)
            for fd, _ in poll.poll(max(0.0, due - now) * 1000):
                if fd == calls_fd:
                    for reply in self._calls_wire.take():
                        open_entries.append(self._accepted(reply))
                        answered, orders = answered + 1, orders + calls[answered].orders
                else:
                    mark, at, looking = _mark(self._look_wire.read()), time.time(), False
                    while open_entries and open_entries[0] < mark:
                        lags.append(at - open_entries.popleft()[0] / 1000)
            still(orders, lags[-1] if lags else 0.0)
        return Offered(orders, ended - began + interval_s, lags, late, time.monotonic() - ended)


def _mark(trimmed: bytes | None) -> tuple[int, int]:
    """Return the stream id of the first entry to keep."""
    ms, _, seq = (trimmed or b"0-0").decode().partition("-")
    return int(ms), int(seq)
