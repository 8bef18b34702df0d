"""aiohttp's own refusals, in the shop's words.

What is no HTTP never reaches the application, and an ``Expect`` that nobody can meet is refused before it does. aiohttp
answers both with plain text and logs a trace that quotes the client's bytes, which may be a token. Here every way out
is a problem document, and a stranger's noise fills no log.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from core.errors import InternalError, MalformedRequest
from core.telemetry import REFUSALS, log
from core.web.problems import problem


class Protocol(RequestHandler):
    """One connection of a buyer."""

    __slots__ = ()

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
    def __call__(self) -> RequestHandler:
        return Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application behind our protocol."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,
        )
