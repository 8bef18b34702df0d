"""The lane: hot requests answered without a request object, a task or a middleware of their own.

It stands in front of aiohttp on the same connection. A whole, plain place, payment callback, order status or product on
an idle connection is decoded here, put on the list of its batch, and answered when the batch's reply is back. Whatever
else comes, and whatever turns out to need a second thought (a refused callback, a malformed field), is handed to
aiohttp byte for byte: the slow way knows everything, so the fast one may know little. Both give the same answers; a
property test compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from core.clock import Clock
from core.errors import InternalError, Overloaded, Refusal
from core.ids import ORDER_ID_BYTES, parse_order_id
from core.sale.catalog.browse import Browsing
from core.sale.orders.answers import PayAnswer, PlaceAnswer
from core.sale.orders.pay import Paying, is_refused
from core.sale.orders.place import Placing, read_idempotency_key, read_request
from core.sale.orders.store import PlaceItem
from core.sale.orders.track import Question, Tracking
from core.sale.payments.port import Gateway
from core.settings import BODY_MOST
from core.telemetry import PAYMENTS, PLACES, REFUSALS, log
from core.web.plain import Answers, PlainReader, Varying
from core.web.read import read_token, read_wait
from core.web.refusing import Refusing
from core.web.routes import CallbackView

_encode = msgspec.json.Encoder().encode
_PLACE: Final = b"POST /v1/orders HTTP/1.1"
_ORDER: Final = b"GET /v1/orders/"
_PRODUCT: Final = b"GET /v1/products/"
_HTTP: Final = b" HTTP/1.1"
_ID_DIGITS: Final = 2 * ORDER_ID_BYTES


class Connection(Protocol):
    """Who sent a request: see ``core/web/protocol.py``."""

    ticket: Ticket | None  # the request under way

    def answered(self, raw: bytes | None, data: bytes) -> None:
        """Send the answer to the request ``data``; None: it has to go the slow way."""


class Verdict(Enum):
    """What became of the bytes."""

    TAKEN = "taken"  # the lane answers
    WHOLE = "whole"  # one whole, plain request that aiohttp answers; the connection may come back afterwards
    UNKNOWN = "unknown"  # aiohttp's from here on: where the next request begins is only known to its parser


class Ticket(msgspec.Struct, eq=False):
    """A request of the lane under way; a sink for the batch it stands in. It keeps the bytes: they may have to go the
    slow way yet. A struct because making one calls no Python.
    """

    lane: Lane
    connection: Connection | None
    data: bytes

    def done(self) -> bool:
        """Say whether nobody wants the answer any more."""
        return self.connection is None

    def set_result(self, answer: Any, /) -> None:
        """Answer the request, unless the client has gone."""
        if self.connection is None:
            return
        try:
            self.finish(self.told(answer))
        except Exception as error:  # noqa: BLE001  # a sink must not raise
            self.set_exception(error)

    def set_exception(self, error: Exception, /) -> None:
        """Answer with what went wrong."""
        if isinstance(error, Refusal):
            REFUSALS.add(error.code)
            self.finish(self.lane.answers.refused(error))
            return
        path = self.data.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1")
        log("error", "request_failed", path=path, error=error)
        self.finish(self.lane.answers.refused(InternalError))

    def told(self, answer: Any) -> bytes | None:
        """Return the answer's bytes, or None to go the slow way."""
        raise NotImplementedError

    def finish(self, raw: bytes | None) -> None:
        """Send the answer; without one the slow way makes it."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self.lane.under_way -= 1
            connection.answered(raw, self.data)

    def drop(self) -> None:
        """Forget the client: it is gone."""
        if self.connection is not None:
            self.connection = None
            self.lane.under_way -= 1


class _Place(Ticket, eq=False):
    item: PlaceItem

    def told(self, answer: PlaceAnswer) -> bytes:
        placed = self.lane.placing.told(self.item, answer)
        if isinstance(placed, type):
            PLACES.add(placed.code)
            return self.lane.answers.refused(placed)
        new, body = placed
        PLACES.add("accepted" if new else "replayed")
        return self.lane.answers.ok(201 if new else 200, body)


class _Refused(Ticket, eq=False):
    """An order that found the list full, and is told so in its turn."""

    def tell(self) -> None:
        """Answer."""
        self.finish(self.lane.answers.refused(Overloaded))


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
    ) -> None:
        self.placing, self._paying, self._tracking, self._browsing = placing, paying, tracking, browsing
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
        self._refusing: Refusing[_Refused] = Refusing(_Refused.tell, placing.called)
        self.under_way = 0
        self.draining = False

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
        if self.placing.is_full():  # before anything is decoded
            REFUSALS.add(Overloaded.code)
            refused = _Refused(self, connection, reader.data)
            self._begin(connection, refused)
            self._refusing.add(refused)
            return True
        item = self.placing.item(read_request(reader.body), read_idempotency_key([key]))
        ticket = _Place(self, connection, reader.data, item)
        refusal = self.placing.place_for(item, ticket)
        if refusal is not None:
            PLACES.add(refusal.code)
            connection.answered(self.answers.refused(refusal), b"")
            return True
        self._begin(connection, ticket)
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
