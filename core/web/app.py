"""The buyers' face: aiohttp handlers that check, call one verb, and answer. No rule of the shop lives here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from core.clock import Clock
from core.errors import (
    BodyTimeout,
    BodyTooLarge,
    FlashproofError,
    InternalError,
    InvalidPage,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    Refusal,
    StoreUnknown,
    UnknownGateway,
)
from core.ids import parse_order_id
from core.sale.catalog.browse import Browsing
from core.sale.catalog.product import SKU
from core.sale.orders.cancel import Cancelling
from core.sale.orders.pay import Paying
from core.sale.orders.place import Placing, read_idempotency_key, read_request, sku_at_first_sight
from core.sale.orders.track import Tracking, TrackView
from core.sale.payments.port import Gateway
from core.settings import BODY_DEADLINE_S, BODY_MOST, PAGE_MOST
from core.telemetry import CANCELS, CUTS, PAYMENTS, PLACES, REFUSALS, log
from core.web.openapi import document
from core.web.problems import problem
from core.web.read import read_token, read_wait
from core.web.routes import ROUTES, CallbackView

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_encode = msgspec.json.Encoder().encode
_LIMIT: Final = re.compile(r"[0-9]{1,4}")
# aiohttp's own refusals, in our words.
_HTTP: Final[dict[int, type[Refusal]]] = {404: NotFound, 405: MethodNotAllowed, 413: BodyTooLarge}


class Shop:
    """The verbs of the sale plane behind HTTP. One a worker process."""

    def __init__(
        self,
        *,
        placing: Placing,
        paying: Paying,
        cancelling: Cancelling,
        tracking: Tracking,
        browsing: Browsing,
        gateways: dict[str, Gateway],
        clock: Clock,
    ) -> None:
        self._placing, self._paying, self._cancelling = placing, paying, cancelling
        self._tracking, self._browsing, self._gateways, self._clock = tracking, browsing, gateways, clock
        self.draining = False
        self.under_way = 0

    def application(self) -> web.Application:
        """Return the aiohttp application, built from the route table."""
        app = web.Application(middlewares=[self._answer_for_everything], client_max_size=BODY_MOST)
        for route in ROUTES:
            app.router.add_route(route.method, route.path, getattr(self, route.handler))
        return app

    @web.middleware
    async def _answer_for_everything(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every way out of a handler is an answer with a code; while draining, it closes the connection."""
        self.under_way += 1
        try:
            response = await handler(request)
        except Refusal as refusal:
            REFUSALS.add(refusal.code)
            response = problem(refusal)
        except web.HTTPException as error:
            response = problem(_HTTP.get(error.status, MalformedRequest))
            if "Allow" in error.headers:  # with 405, RFC 9110 wants it
                response.headers["Allow"] = error.headers["Allow"]
        except FlashproofError as fault:
            log("error", "request_failed", path=request.rel_url.path, error=fault)
            response = problem(InternalError)
        except asyncio.CancelledError:
            raise  # the client is gone; nobody is left to answer
        except Exception as error:  # the last net: the process lives and the failure has a name
            if isinstance(error, ConnectionError) and request.transport is None:
                raise  # the same, seen while its body was read
            log("error", "request_failed", path=request.rel_url.path, error=error)
            response = problem(InternalError)
        finally:
            self.under_way -= 1
        if self.draining:
            response.force_close()
        return response

    async def place_order(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/orders."""
        # The body is read in any case: unread, it would cost the client its connection.
        placing, body = self._placing, await _body(request)
        if placing.room() <= 0 and placing.is_hopeless(sku_at_first_sight(body)):
            raise Overloaded(again_s=placing.come_again_s(1)[0])
        key = read_idempotency_key(request.headers.getall("Idempotency-Key", []))
        try:
            placed = await placing.place(read_request(body), key)
        except Overloaded as refusal:
            raise Overloaded(again_s=placing.come_again_s(1)[0]) from refusal
        if isinstance(placed, type):
            PLACES.add(placed.code)
            return problem(placed)
        new, body = placed
        PLACES.add("accepted" if new else "replayed")
        return web.Response(body=body, status=201 if new else 200, content_type="application/json")

    async def track_order(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/orders/{id}."""
        order_id = self._owner(request)
        seconds = read_wait(request.query.get("wait"))
        if seconds > 0:
            return _json(await self._tracking.wait(order_id, seconds))
        return _json(await self._tracking.look(order_id))

    async def cancel_order(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/orders/{id}."""
        order_id = self._owner(request)
        try:
            await self._cancelling.cancel(order_id)
        except Refusal as refusal:
            CANCELS.add(refusal.code)
            raise
        CANCELS.add("cancelled")
        try:
            view: TrackView = await self._tracking.look(order_id)
        except Refusal as refusal:  # whatever it says of itself, the order is cancelled; a repeated call will tell
            raise StoreUnknown from refusal
        return _json(view)

    async def payment_callback(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/payments/{gateway}/callback."""
        gateway = self._gateways.get(request.match_info["gateway"])
        if gateway is None:
            raise UnknownGateway
        body = await _body(request)
        report = gateway.read_callback(body, request.headers, self._clock.now_ms() // 1000)
        try:
            answer = await self._paying.pay(report)
        except Refusal as refusal:
            PAYMENTS.add(refusal.code)
            raise
        PAYMENTS.add(answer.outcome)
        return _json(CallbackView(outcome=answer.outcome, state=answer.state))

    async def list_products(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/products."""
        limit, after = request.query.get("limit", "100"), request.query.get("after", "")
        if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= PAGE_MOST:
            raise InvalidPage
        if after and not SKU.fullmatch(after):
            raise InvalidPage("after must be the last SKU of the page before.")
        return _json(await self._browsing.page(after, int(limit)))

    async def show_product(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/products/{sku}."""
        return _json(await self._browsing.product(request.match_info["sku"]))

    async def show_openapi(self, request: web.Request) -> web.StreamResponse:
        """GET /openapi.json."""
        return web.Response(body=document(), content_type="application/json")

    def _owner(self, request: web.Request) -> bytes:
        token = read_token(request.headers.get("Authorization", ""))
        return self._tracking.authorise(parse_order_id(request.match_info["id"]), token)


def _json(view: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(body=_encode(view), status=status, content_type="application/json")


async def _body(request: web.Request) -> bytes:
    """Return the whole body, within its limits in bytes and time."""
    if request.content_length is not None and request.content_length > BODY_MOST:
        raise BodyTooLarge(f"The body may have {BODY_MOST} bytes.")
    try:
        if request.content.is_eof():
            return await request.read()
        async with asyncio.timeout(BODY_DEADLINE_S):
            return await request.read()
    except TimeoutError as error:
        CUTS.add(BodyTimeout.code)
        raise BodyTimeout from error
    except web.RequestPayloadError as error:
        raise MalformedRequest("The body is not what its headers say.") from error
