"""The lane: hot requests answered without a request object, a task or a middleware of their own.

It stands in front of aiohttp on the same connection. A whole, plain place, payment callback, order status or product on
an idle connection is decoded here, put on the list of its batch, and answered when the batch's reply is back. Whatever
else comes, and whatever turns out to need a second thought (a refused callback, a malformed field), is handed to
aiohttp byte for byte: the slow way knows everything, so the fast one may know little. Both give the same answers; a
property test compares them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Final, NamedTuple, Protocol

import msgspec

from core.clock import Clock
from core.errors import Overloaded, Refusal
from core.ids import ORDER_ID_BYTES, parse_order_id
from core.sale.catalog.browse import Browsing
from core.sale.orders.answers import PayAnswer
from core.sale.orders.pay import Paying, is_refused
from core.sale.orders.place import Placing
from core.sale.orders.track import Question, Tracking
from core.sale.payments.port import Gateway
from core.settings import BODY_MOST
from core.telemetry import PAYMENTS, REFUSALS, log
from core.web.leisure import Leisure
from core.web.orders import Order, Orders
from core.web.plain import Answers, PlainReader, Varying
from core.web.read import read_token, read_wait
from core.web.routes import CallbackView
from core.web.ticket import Connection, Ticket

_encode = msgspec.json.Encoder().encode
_PLACE: Final = b"POST /v1/orders HTTP/1.1"
_ORDER: Final = b"GET /v1/orders/"
_PRODUCT: Final = b"GET /v1/products/"
_HTTP: Final = b" HTTP/1.1"
HOT: Final = (_PLACE[:16], _ORDER, _PRODUCT, b"POST /v1/payments/")  # how requests begin that may be the lane's
_ID_DIGITS: Final = 2 * ORDER_ID_BYTES


class Verdict(Enum):
    """What became of the bytes."""

    TAKEN = "taken"  # the lane answers
    WHOLE = "whole"  # one whole, plain request that aiohttp answers; the connection may come back afterwards
    UNKNOWN = "unknown"  # aiohttp's from here on: where the next request begins is only known to its parser


class Coming(Ticket, eq=False):
    """Stands for every request that came and was not looked at yet."""

    def drop(self) -> None:
        """Forget one of them."""
        self.lane.under_way -= 1


class Looked(Connection, Protocol):
    """A connection that wants to know what became of its bytes."""

    def looked_at(self, data: bytes, verdict: Verdict) -> None:
        """Hear that the bytes are aiohttp's, and whether they are one whole request."""


class _Callback(Ticket, eq=False):
    def set_exception(self, error: Exception, /) -> None:
        if isinstance(error, Refusal):
            PAYMENTS.add(error.code)
        super().set_exception(error)

    def told(self, answer: PayAnswer) -> bytes | None:
        if is_refused(answer):
            return None
        PAYMENTS.add(answer.outcome)
        return self.lane.answers.ok(200, _encode(CallbackView(outcome=answer.outcome, state=answer.state)))


class _Track(Ticket, eq=False):
    question: Question | None = None

    def told(self, answer: msgspec.Struct) -> bytes:
        return self.lane.answers.ok(200, _encode(answer))

    def drop(self) -> None:
        super().drop()
        if self.question is not None:
            self.question.drop()


class _Hot(NamedTuple):
    """A hot kind of request: what varies in it, and what takes it (connection, value, request line)."""

    varying: Varying
    take: Callable[[Connection, str, bytes], bool]


def _end(connection: Connection, error: Exception) -> None:
    log("error", "connection_failed", error=error)
    connection.fail()


class Lane:
    """The hot calls on their verbs. One a worker process."""

    def __init__(
        self,
        *,
        placing: Placing,
        paying: Paying,
        tracking: Tracking,
        browsing: Browsing,
        gateways: dict[str, Gateway],
        clock: Clock,
        leisure: Leisure | None = None,
    ) -> None:
        """``leisure``: when aiohttp may have what is its to answer; None: at once."""
        self._leisure = leisure or Leisure()
        self._paying, self._tracking, self._browsing = paying, tracking, browsing
        self._clock = clock
        # By request line. A gateway that reads several headers goes aiohttp's way: one value may vary in a known shape.
        self._hot = {_PLACE: _Hot(Varying(0, "Idempotency-Key"), self._place)}
        self._tracks = _Hot(Varying(len(_ORDER) + _ID_DIGITS, "Authorization"), self._track)
        for gateway in gateways.values():
            if len(gateway.headers) == 1:
                line = f"POST /v1/payments/{gateway.name}/callback HTTP/1.1".encode()
                take = partial(self._callback, gateway)
                self._hot[line] = _Hot(Varying(0, gateway.headers[0]), take)
        self.reader, self.answers = PlainReader(), Answers()
        self._orders = Orders(placing, self.answers)
        self.coming = Coming(self, None, b"")
        self._came: list[tuple[Looked, bytes]] = []
        self._ordered: list[Order] = []  # among them
        self.under_way = 0
        self.draining = False

    def come(self, connection: Looked, data: bytes) -> None:
        """Take what came on an idle connection; all of this turn of the loop are looked at together, behind the last.

        Reading in turn with the kernel's work for each connection costs half as much again: neither's code stays in the
        processor's nearest cache. The connection's ticket is ``coming`` until then.
        """
        self.under_way += 1
        if not self._came:
            asyncio.get_running_loop().call_soon(self._look)
        self._came.append((connection, data))

    def _look(self) -> None:
        came, self._came = self._came, []
        others: list[tuple[Looked, bytes, Verdict]] = []
        coming, reader, orders, ordered = self.coming, self.reader, self._orders, self._ordered
        recall, place = reader.recall, self._hot[_PLACE].varying
        for connection, data in came:
            if connection.ticket is not coming:
                continue  # the client has gone
            # The one request that comes in floods, in the one head that was known before: no second look.
            key = recall(data, place) if data.startswith(_PLACE) else None
            if key and len(reader.body) <= BODY_MOST:
                order = connection.ticket = Order(self, connection, data, orders, key, reader.body)
                ordered.append(order)
                continue
            connection.ticket = None  # `take` may give it another
            self.under_way -= 1
            try:
                verdict = self.take(connection, data)
            except Exception as error:  # noqa: BLE001  # a fault of ours ends this connection, not its neighbours'
                _end(connection, error)
                continue
            if verdict is not Verdict.TAKEN:
                connection.ticket = coming
                self.under_way += 1
                others.append((connection, data, verdict))
        if ordered:
            self._ordered = []
        try:
            if ordered:
                orders.read(ordered)
        finally:  # behind the orders, which they would have stood before, and whatever became of those
            for connection, data, verdict in others:
                self._leisure.do(partial(self._hand_on, connection, data, verdict))

    def _hand_on(self, connection: Looked, data: bytes, verdict: Verdict) -> None:
        """Give aiohttp what is its to answer."""
        if connection.ticket is not self.coming:
            return  # the client has gone
        connection.ticket = None
        self.under_way -= 1
        try:
            connection.looked_at(data, verdict)
        except Exception as error:  # noqa: BLE001  # as above
            _end(connection, error)

    def take(self, connection: Connection, data: bytes) -> Verdict:
        """Look at what came on an idle connection, and answer it if it is a hot request."""
        reader = self.reader
        if self.draining:
            return Verdict.UNKNOWN
        line = data[: data.find(b"\r\n")]
        hot = self._hot.get(line) or (self._tracks if line.startswith(_ORDER) else None)
        value = reader.recall(data, hot.varying) if hot is not None and len(line) >= hot.varying.start else None
        if value is None:
            if not reader.read(data):
                return Verdict.UNKNOWN
            if not line.endswith(_HTTP):
                reader.renew()  # behind HTTP/1.0 its parser takes nothing more, from nobody
                return Verdict.WHOLE
            if hot is not None:
                value = reader.header(hot.varying.name)
                if value is not None:
                    reader.remember(hot.varying)
        try:
            if hot is not None:
                taken = value is not None and hot.take(connection, value, line)
            else:
                taken = line.startswith(_PRODUCT) and self._product(connection, line[len(_PRODUCT) : -len(_HTTP)])
        except Overloaded as refusal:
            REFUSALS.add(refusal.code)
            connection.answered(self.answers.refused(refusal), b"")
            return Verdict.TAKEN
        except Exception:  # noqa: BLE001  # a refusal or a fault; nothing was begun, so aiohttp's way may say which
            return Verdict.WHOLE
        return Verdict.TAKEN if taken else Verdict.WHOLE

    def _begin(self, connection: Connection, ticket: Ticket) -> None:
        self.under_way += 1
        connection.ticket = ticket

    def _place(self, connection: Connection, key: str, _: bytes) -> bool:
        reader = self.reader
        if not key or len(reader.body) > BODY_MOST:
            return False
        order = Order(self, connection, reader.data, self._orders, key, reader.body)
        self._begin(connection, order)
        self._ordered.append(order)
        return True

    def _callback(self, gateway: Gateway, connection: Connection, value: str, _: bytes) -> bool:
        body = self.reader.body
        if len(body) > BODY_MOST:
            return False
        report = gateway.read_callback(body, {gateway.headers[0]: value}, self._clock.now_ms() // 1000)
        ticket = _Callback(self, connection, self.reader.data)
        try:
            self._paying.pay_for(report, ticket)
        except Overloaded as refusal:
            PAYMENTS.add(refusal.code)
            raise
        self._begin(connection, ticket)
        return True

    def _track(self, connection: Connection, authorization: str, line: bytes) -> bool:
        name, asked, wait = line[len(_ORDER) : -len(_HTTP)].decode("latin-1").partition("?wait=")
        if self.reader.body or not authorization:
            return False
        order_id = self._tracking.authorise(parse_order_id(name), read_token(authorization))
        ticket = _Track(self, connection, self.reader.data)
        ticket.question = self._tracking.ask(order_id, read_wait(wait if asked else None), ticket)
        self._begin(connection, ticket)
        return True

    def _product(self, connection: Connection, sku: bytes) -> bool:
        view = None if self.reader.body else self._browsing.fresh(sku.decode("latin-1"))
        if view is None:
            return False
        connection.answered(self.answers.ok(200, _encode(view)), b"")
        return True
