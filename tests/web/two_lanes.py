"""Two servers over one kind of shop, one with the lane and one without, and a client that cuts its bytes at will.

The shop is the real one but for its stores: those are pure functions of what is put into real ``Batches``, so whatever
differs between two servers differs because of the lane. Connections are fed by hand, and the loop's time is made up: it
leaps to the next timer, so a long poll or an idle connection costs a test nothing, and no test depends on a machine.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import cycle
from typing import Any, Final, NamedTuple, TypeVar

from pure_stores import CLOCK_MS, NAMES, SECRET, Calls, PureCatalog, PureOrders, PureRecords

from core.clock import Clock
from core.sale.catalog.browse import Browsing
from core.sale.orders.cancel import Cancelling
from core.sale.orders.pay import Paying
from core.sale.orders.place import Placing
from core.sale.orders.track import Tracking
from core.sale.payments.gateways.sandbox import Sandbox
from core.sale.payments.port import Gateway
from core.settings import KEEPALIVE_S
from core.telemetry import CANCELS, PAYMENTS, PLACES, REFUSALS, flush_tallies
from core.web.app import Shop
from core.web.lane import Lane, Verdict
from core.web.leisure import Leisure
from core.web.protocol import Runner

Result = TypeVar("Result")
TURNS_MOST: Final = 10_000  # of the loop until everything rests; more is a circle
TURN_S: Final = 1e-7
SOON_S: Final = 2.0  # longer than all answers of slow stores; shorter than every limit of time
LATER_S: Final = 60.0  # longer than every limit of time but that of an idle connection
COMPARED: Final = ("content-type", "x-outcome", "retry-after", "www-authenticate", "allow", "connection")
TALLIES: Final = (PLACES, PAYMENTS, CANCELS, REFUSALS)


class _Leaping(selectors.SelectSelector):
    """Waits for nothing; time leaps to the next timer. A turn takes a moment, or a timer set anew circles."""

    now = 1_000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing is left that could happen, and something is waited for"
        self.now += timeout + TURN_S
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop with a time of its own."""

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)
        self.failures: list[dict[str, Any]] = []
        self.set_exception_handler(lambda loop, context: self.failures.append(context))

    def time(self) -> float:
        return self._leaping.now

    async def rest(self) -> None:
        """Return when nothing can happen any more unless time passes or bytes come."""
        for _ in range(TURNS_MOST):
            await asyncio.sleep(0)
            if not self._ready:  # type: ignore[attr-defined]
                return
        raise AssertionError("the loop never rests")

    async def sleep(self, seconds: float) -> None:
        """Let time pass, and all that happens then."""
        await asyncio.sleep(seconds)
        await self.rest()


class Fixed:
    """A wall clock that stands still, and the loop's time."""

    def __init__(self, loop: Loop) -> None:
        self.monotonic_s = loop.time

    def now_ms(self) -> int:
        return CLOCK_MS


class Line(asyncio.Transport):
    """The server's end of a connection. It keeps what comes while nobody reads.

    It joins no two reads, as a kernel may: aiohttp answers otherwise if a right and a wrong request come in one read.
    """

    def __init__(self, loop: Loop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop, self.protocol = loop, protocol
        self.sent, self._kept = bytearray(), deque[bytes]()
        self.closed, self.reading, self.closed_at = False, True, 0.0
        self.limit: int | None = None  # of what is written and not taken yet, and the same at the first write
        self.limit_at_first: int | None = None
        protocol.connection_made(self)

    def feed(self, data: bytes) -> None:
        """Receive some bytes."""
        if self.closed:
            return
        if self._kept or not self.reading:
            self._kept.append(data)
        elif data:
            self.protocol.data_received(data)

    def lose(self, error: Exception | None = None) -> None:
        """Have the client go away."""
        if not self.closed:
            self.closed, self.closed_at = True, self._loop.time()
            self.protocol.connection_lost(error)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.sent:
            self.limit_at_first = self.limit
        if not self.closed:
            self.sent += data

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(parts))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Keep the limit; it takes everything at once all the same."""
        self.limit = high

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        if not self.reading:
            self.reading = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        while self.reading and self._kept and not self.closed:
            self.protocol.data_received(self._kept.popleft())

    def close(self) -> None:
        if not self.closed:
            self.closed, self.closed_at = True, self._loop.time()
            self._loop.call_soon(self.protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return self.reading

    def get_write_buffer_size(self) -> int:
        return 0


class Answer(NamedTuple):
    """What is compared of an answer."""

    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def codes(answers: Iterable[Answer]) -> list[int]:
    """Return the statuses of some answers."""
    return [int(answer.status.split()[1]) for answer in answers]


def read_answers(sent: bytes) -> tuple[Answer, ...]:
    """Return the answers in what a server sent; each must have its length."""
    found: list[Answer] = []
    while sent:
        head, end, sent = sent.partition(b"\r\n\r\n")
        assert end, f"an answer without an end: {head!r}"
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        length = int(dict(headers).get("content-length", "0"))
        if not sent or sent.startswith(b"HTTP/"):  # to HEAD, in any version: a length but no body
            length = 0
        assert len(sent) >= length, f"an answer shorter than it says: {head!r}"
        found.append(Answer(status, tuple(sorted(one for one in headers if one[0] in COMPARED)), sent[:length]))
        sent = sent[length:]
    return tuple(found)


class Piece(NamedTuple):
    """Bytes that come in one read, and what happens before the next: nothing, a turn, rest, a wake, or time."""

    data: bytes
    gap: str | float = "rest"


class Heard(NamedTuple):
    """All that one connection came to."""

    answers: tuple[Answer, ...]
    open_soon: bool  # after SOON_S
    open_later: bool  # after LATER_S
    done: tuple[object, ...]  # what reached the stores and was not refused there, in order
    counted: tuple[tuple[tuple[str, int], ...], ...]


class Others:
    """Orders of others; where there are any, under way two times of three that somebody asks."""

    def __init__(self) -> None:
        self.when_rested: Callable[[], None] = lambda: None
        self.come = False
        self._turn = cycle((False, True, True))

    @property
    def is_under_way(self) -> bool:
        """Whether any is."""
        return self.come and next(self._turn)


class Server:
    """A shop on pure stores, served with or without the lane."""

    def __init__(self, loop: Loop, with_lane: bool, more_gateways: Sequence[Gateway] = ()) -> None:
        clock: Clock = Fixed(loop)
        self.calls = Calls()
        self.orders, self.catalog = PureOrders(self.calls, loop.time), PureCatalog()
        store: Any = self.orders
        records = PureRecords(loop.time)
        paying = Paying(store, records)
        self.tracking = Tracking(NAMES, store, records, clock)
        gateways: dict[str, Gateway] = {one.name: one for one in (Sandbox(SECRET), *more_gateways)}
        placing, self.browsing = Placing(NAMES, store, "/pay/"), Browsing(self.catalog, clock)  # type: ignore[arg-type]
        self.shop = Shop(
            placing=placing,
            paying=paying,
            cancelling=Cancelling(store, records, paying, gateways),
            tracking=self.tracking,
            browsing=self.browsing,
            gateways=gateways,
            clock=clock,
        )
        self.others = Others()
        self.lane: Lane | None = None
        self.taken = 0  # requests the lane answered, or began to
        if with_lane:
            self.lane = Lane(
                placing=placing,
                paying=paying,
                tracking=self.tracking,
                browsing=self.browsing,
                gateways=gateways,
                clock=clock,
                leisure=Leisure(self.others),
            )
            self._count(self.lane)
        self._loop = loop

    def _count(self, lane: Lane) -> None:
        come, take = lane.come, lane.take

        def came(connection: Any, data: bytes) -> None:
            self.taken += 1
            come(connection, data)

        def looked_at(connection: Any, data: bytes) -> Verdict:
            verdict = take(connection, data)
            self.taken -= verdict is not Verdict.TAKEN
            return verdict

        lane.come, lane.take = came, looked_at  # type: ignore[method-assign]

    async def start(self, keepalive_s: float) -> None:
        """Make ready for connections."""
        self._runner = Runner(
            self.shop.application(),
            self.lane,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=keepalive_s,
        )
        await self._runner.setup()

    def factory(self) -> asyncio.Protocol:
        """Return what serves a new connection."""
        assert self._runner.server is not None
        return self._runner.server()

    def connect(self) -> Line:
        """Return a new connection."""
        return Line(self._loop, self.factory())

    async def stop(self) -> None:
        """Let go of everything."""
        await self._runner.cleanup()

    def drain(self) -> None:
        """Begin to stop, as a worker does."""
        self.shop.draining = True
        if self.lane is not None:
            self.lane.draining = True
        self.tracking.waiters.close()

    @property
    def handled(self) -> int:
        """How many requests aiohttp handled."""
        assert self._runner.server is not None
        return self._runner.server.requests_count

    @property
    def under_way(self) -> int:
        """How many requests are under way."""
        return self.shop.under_way + (self.lane.under_way if self.lane is not None else 0)

    async def talk(self, pieces: Sequence[Piece], *, slow_s: float = 0.0, fresh: Sequence[str] = ()) -> Heard:
        """Send pieces on a connection of their own; stores take ``slow_s``; ``fresh`` was just asked about.

        Others order meanwhile: so aiohttp has its requests now at once, now behind them.
        """
        self.others.come = True
        self.calls.clear()
        flush_tallies()
        self.browsing._kept.clear()
        for sku in fresh:
            await self.browsing.product(sku)
        self.calls.slow_s = slow_s
        line = self.connect()
        for piece in pieces:
            line.feed(piece.data)
            await self._pass(piece.gap)
        await self._loop.rest()
        await self._loop.sleep(SOON_S)
        soon = not line.closed
        await self._loop.sleep(LATER_S)
        later = not line.closed
        line.lose()
        self.others.come = False
        await self._loop.rest()
        assert self.under_way == self.tracking.waiters.count == 0
        counted = tuple([tuple(sorted(tally.counts.items())) for tally in TALLIES])
        return Heard(read_answers(bytes(line.sent)), soon, later, tuple(self.calls.done), counted)

    async def _pass(self, gap: str | float) -> None:
        if gap == "rest":
            await self._loop.rest()
        elif gap == "turn":
            await asyncio.sleep(0)
        elif gap == "wake":  # as if a message had told that every order may have moved
            self.tracking.waiters.wake_all()
            await self._loop.rest()
        elif isinstance(gap, float):
            await asyncio.sleep(gap)
        else:
            assert gap == "nothing", gap


class Two:
    """The two servers, on one loop."""

    def __init__(self, keepalive_s: float = KEEPALIVE_S, more_gateways: Sequence[Gateway] = ()) -> None:
        self.loop = Loop()
        self.fast = Server(self.loop, True, more_gateways)
        self.plain = Server(self.loop, False, more_gateways)
        for server in (self.fast, self.plain):
            self.run(server.start(keepalive_s))

    def run(self, what: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end; nothing may fail unseen meanwhile."""
        result = self.loop.run_until_complete(what)
        assert not self.loop.failures, self.loop.failures
        return result

    def both(self, story: Callable[[Server], Coroutine[Any, Any, Result]]) -> Result:
        """Assert that a story ends the same on both servers; return its end."""
        fast = self.run(story(self.fast))
        assert fast == self.run(story(self.plain))
        return fast

    def agree(self, *pieces: Piece | bytes, slow_s: float = 0.0, fresh: Sequence[str] = ()) -> Heard:
        """Assert that both servers answer a client the same; return it."""
        cut = [piece if isinstance(piece, Piece) else Piece(piece) for piece in pieces]
        return self.both(lambda server: server.talk(cut, slow_s=slow_s, fresh=fresh))

    def taken(self, *pieces: Piece | bytes, slow_s: float = 0.0, fresh: Sequence[str] = ()) -> tuple[int, Heard]:
        """Do as ``agree``; return also how many requests the lane took."""
        before = self.fast.taken
        heard = self.agree(*pieces, slow_s=slow_s, fresh=fresh)
        return self.fast.taken - before, heard

    def close(self) -> None:
        """Let go of the loop."""
        self.loop.close()
