"""One connection: the lane in front, aiohttp behind it, and aiohttp's own refusals in the shop's words.

What is no HTTP never reaches the application, and an ``Expect`` that nobody can meet is refused before it does. aiohttp
answers both with plain text and logs a trace that quotes the client's bytes, which may be a token. Here every way out
is a problem document, and a stranger's noise fills no log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from core.errors import InternalError, MalformedRequest
from core.telemetry import REFUSALS, log
from core.web.lane import Lane, Ticket, Verdict
from core.web.plain import closing
from core.web.problems import problem


class Protocol(RequestHandler):
    """One connection of a buyer.

    Bytes go to the lane first while it is certain that a request begins with them: nothing is under way, nothing is
    half read. Once aiohttp's parser may hold a part of a request, the connection stays with aiohttp to its end; where
    the next request begins is then known to nobody else, and guessing there is how requests are smuggled.
    """

    __slots__ = ("_held", "_lane", "_stays", "ticket")

    def __init__(self, manager: web.Server, *, lane: Lane | None, loop: asyncio.AbstractEventLoop, **kw: Any) -> None:
        """``lane``: None turns it off."""
        super().__init__(manager, loop=loop, **kw)
        self._lane = lane
        self._stays = lane is None  # with aiohttp
        self._held = b""  # what came while the lane had a request of this connection under way
        self.ticket: Ticket | None = None

    # --- the lane -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Give the bytes to the lane or to aiohttp."""
        if self.ticket is not None:
            self._held += data
            if self.transport is not None:
                self.transport.pause_reading()  # one read at most is held
            return
        if not self._stays:
            assert self._lane is not None
            if self._is_idle():
                verdict = self._lane.take(self, data)
                if verdict is Verdict.TAKEN:
                    return
                self._stays = verdict is Verdict.UNKNOWN
            elif data:  # without any it is aiohttp's own call: its parser may go on with what it holds back
                self._stays = True
        super().data_received(data)

    def _is_idle(self) -> bool:
        """Say whether a request begins with the next byte and aiohttp has nothing under way."""
        waiter = self._waiter  # set while aiohttp waits for a request; not yet when it was never given one
        resting = not waiter.done() if waiter is not None else self._request_count == 0
        return resting and not (self._paused or self._close or self._force_close)

    def answered(self, raw: bytes | None, data: bytes) -> None:
        """Send the lane's answer to the request ``data``; without one, aiohttp makes it."""
        self.ticket = None
        if self.transport is None or self.transport.is_closing():
            return
        if raw is None:
            super().data_received(data)
        elif self._lane is not None and self._lane.draining:
            self.transport.write(closing(raw))
            self.close()
            self.transport.close()
            return
        else:
            self.transport.write(raw)
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._held:
            held, self._held = self._held, b""
            self.transport.resume_reading()
            self.data_received(held)

    def _process_keepalive(self) -> None:
        """Close an idle connection; one whose answer is under way is not idle."""
        if self.ticket is not None:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget what was under way: nobody is left to answer."""
        ticket, self.ticket, self._held = self.ticket, None, b""
        if ticket is not None:
            ticket.drop()
        super().connection_lost(exc)

    # --- aiohttp's refusals ---------------------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to what could not be read, or could not be handled outside every handler."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun; there is no second one")
        if status < 500:
            REFUSALS.add(MalformedRequest.code)
            response = problem(MalformedRequest)
        else:
            log("error", "request_failed", path=request.rel_url.path, error=exc if isinstance(exc, Exception) else None)
            response = problem(InternalError)
        response.force_close()
        return response

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send an answer; a refusal of aiohttp's is put into our words first."""
        if isinstance(resp, web.HTTPException):
            resp = problem(MalformedRequest)
            resp.force_close()
        return super().finish_response(request, resp, start_time)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Name what ended a connection, in one line and without a trace; a body that cannot be read is no news."""
        error = kw.get("exc_info")
        if isinstance(error, Exception) and not isinstance(error, RequestPayloadError):
            log("error", "connection_failed", error=error)


class _Server(web.Server):
    lane: Lane | None = None

    def __call__(self) -> RequestHandler:
        return Protocol(self, lane=self.lane, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application behind our protocol and, unless it is None, the lane."""

    def __init__(self, app: web.Application, lane: Lane | None, **kw: Any) -> None:
        super().__init__(app, **kw)
        self._lane = lane

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,
        )
        server.lane = self._lane
        return server
