"""One connection: the lane in front, aiohttp behind it, and aiohttp's own refusals in the shop's words.

What is no HTTP never reaches the application, and an ``Expect`` that nobody can meet is refused before it does. aiohttp
answers both with plain text and logs a trace that quotes the client's bytes, which may be a token. Here every way out
is a problem document, and a stranger's noise fills no log. Who keeps a connection waiting is cut off: see
``core/web/deadlines.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from core.errors import FlashproofError, HeadTooLarge, InternalError, MalformedRequest, Refusal
from core.settings import HEAD_MOST
from core.telemetry import CUTS, REFUSALS, log
from core.web.deadlines import Deadlines
from core.web.lane import Lane, Verdict
from core.web.leisure import Leisure
from core.web.plain import Answers, closing
from core.web.porch import RESET
from core.web.problems import problem
from core.web.ticket import Ticket

_TURNS: Final = 3  # of the loop, in which aiohttp gets from one request to the next


class Protocol(RequestHandler):
    """One connection of a buyer.

    Bytes go to the lane first while it is certain that a request begins with them: nothing is under way, nothing is
    half read. Once aiohttp's parser may hold a part of a request, the connection stays with aiohttp to its end; where
    the next request begins is then known to nobody else, and guessing there is how requests are smuggled.

    One request at a time is looked at: what comes behind a whole one waits, one read here and the rest in the kernel.
    So pipelining costs the client its own time and not our memory, and a head in pieces is always seen as one.
    """

    __slots__ = (
        "_answers",
        "_body",
        "_deadlines",
        "_deaf",
        "_head_bytes",
        "_held",
        "_lane",
        "_spoke",
        "_stays",
        "_wire",
        "said",
        "ticket",
        "when_lost",
    )

    def __init__(
        self,
        manager: web.Server,
        *,
        lane: Lane | None,
        deadlines: Deadlines,
        answers: Answers,
        loop: asyncio.AbstractEventLoop,
        **kw: Any,
    ) -> None:
        """``lane``: None turns it off."""
        super().__init__(manager, loop=loop, **kw)
        self._lane, self._deadlines, self._answers = lane, deadlines, answers
        self._stays = lane is None  # with aiohttp
        self._held = b""  # what came while a request of this connection was under way
        self._spoke = False  # anything came
        self._head_bytes = 0  # of a head that comes in pieces
        self._body: StreamReader = EMPTY_PAYLOAD  # of the last request that aiohttp was given
        self._deaf = False  # the last was no request: nothing is understood any more
        self._wire: asyncio.Transport | None = None  # aiohttp forgets its own before the last byte is gone
        self.said = b""  # in the porch
        self.ticket: Ticket | None = None
        self.when_lost: Callable[[], None] | None = None

    # --- the lane -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Give the bytes to the lane or to aiohttp."""
        waiter = self._waiter  # as in `_rests`, which would be one call more a request
        if (
            self._spoke
            and self.ticket is None
            and (self._request_count == 0 if waiter is None else not waiter.done())
            and not (self._stays or self._paused or self._close or self._force_close)
        ):
            lane = self._lane
            assert lane is not None
            self.ticket = lane.coming
            lane.come(self, data)
            return
        self._received(data)

    def _received(self, data: bytes) -> None:
        if not self._spoke and not data.isspace():
            self._spoke = True
            self._deadlines.first_byte.leave(self)
        rests = self.ticket is None and self._rests()
        if not rests and (self.ticket is not None or self._body.is_eof()) and data:
            self._hold(data)
            return
        if not self._stays:
            assert self._lane is not None
            if rests and not (self._paused or self._close or self._force_close):
                self.ticket = self._lane.coming
                self._lane.come(self, data)
                return
            if data:  # without any it is aiohttp's own call: its parser may go on with what it holds back
                self._stays = True
        self._feed(data, rests)

    def looked_at(self, data: bytes, verdict: Verdict) -> None:
        """Hear from the lane that the bytes are aiohttp's."""
        self._stays = verdict is Verdict.UNKNOWN
        if self.transport is None:
            return
        self._feed(data, rested=True)
        if self._held:  # it came behind these bytes, before they were looked at; it may be the rest of their request
            self._received(self._let_go())

    def fail(self) -> None:
        """End at once: something of ours went wrong, and where the next request begins is not certain any more."""
        if self._wire is not None:
            self._wire.abort()

    def _hold(self, data: bytes) -> None:
        """Keep what came too early; one read at most, for nothing more is read."""
        self._held += data
        if self.transport is not None:
            self.transport.pause_reading()
        if self.ticket is None and not (self._messages or self._request_in_progress):
            self._loop.call_soon(self._go_on)  # aiohttp is between two requests: no end of one comes to go on

    def _rests(self) -> bool:
        """Say whether aiohttp has no request under way."""
        waiter = self._waiter  # set while aiohttp waits for a request; not yet when it was never given one
        return not waiter.done() if waiter is not None else self._request_count == 0

    def _feed(self, data: bytes, rested: bool) -> None:
        """Give bytes to aiohttp; when it ``rested`` and no request came out of them, a head is being sent in pieces."""
        if self._deaf:
            return
        count = self._request_count
        super().data_received(data)
        if self._request_count != count:
            self._note_last()
            if self._head_bytes:
                self._head_bytes = 0
                self._deadlines.head.leave(self)
        elif rested and data and (self._head_bytes or not data.isspace()):  # line ends before a request are nothing
            self._head_bytes += len(data)
            self._deadlines.head.enter(self)
            if self._head_bytes > HEAD_MOST:
                self.cut(HeadTooLarge)

    def _note_last(self) -> None:
        """Remember the body of the last request that aiohttp has read the head of."""
        last, self._body = self._messages[-1]
        if isinstance(last, _ErrInfo):
            # aiohttp reads on for a moment, until the end of a body that has none: closing on unread bytes would reset
            # the connection, and the answer might be lost with it (RFC 9112, 9.6).
            self._deaf, self._body = True, StreamReader(self, 1, loop=self._loop)
            self._messages[-1] = last, self._body

    def answered(self, raw: bytes | None, data: bytes) -> None:
        """Send the lane's answer to the request ``data``; without one, aiohttp makes it."""
        self.ticket = None
        if self.transport is None or self.transport.is_closing():
            return
        if raw is None:
            self._feed(data, rested=False)
        elif self._lane is not None and self._lane.draining:
            self.transport.write(closing(raw))
            self.close()
            self.transport.close()
            return
        else:
            self.transport.write(raw)
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._held:
            self._go_on()

    def _go_on(self, turns: int = _TURNS) -> None:
        """Look at what was held, if nothing is under way any more."""
        if not self._held or self.ticket is not None or self.transport is None or self.transport.is_closing():
            return
        rests = self._rests()
        if not rests and (self._messages or self._request_in_progress):
            return  # the end of that request comes here again
        if not rests and turns:
            self._loop.call_soon(self._go_on, turns - 1)
            return
        held = self._let_go()
        if rests:
            self.data_received(held)
        else:  # aiohttp reads what is left of a body nobody wants: only its parser knows where that ends
            self._stays = True
            self._feed(held, rested=False)

    def _let_go(self) -> bytes:
        """Return what was held, and read on."""
        held, self._held = self._held, b""
        if self.transport is not None and not (self._reading_paused or self._buffer_paused):  # aiohttp resumes then
            self.transport.resume_reading()
        return held

    def _resume_transport_reading(self) -> None:
        """Read on, if that is aiohttp's to say: not while something is held."""
        if not self._held:
            super()._resume_transport_reading()

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        """Handle one request of aiohttp's, then go on with what was held meanwhile."""
        try:
            return await super()._handle_request(request, start_time, request_handler)
        finally:
            # Behind a switch of protocols that was declined aiohttp has read on by itself.
            if self._messages and self.transport is not None:
                self._note_last()
            if self._held:
                self._loop.call_soon(self._go_on)

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
        self._deadlines.forget(self)
        self._wire, self._body = None, EMPTY_PAYLOAD  # a body knows its connection: a circle only the collector breaks
        super().connection_lost(exc)
        self.lost()

    def lost(self) -> None:
        """Say, once, that this connection is no more."""
        tell, self.when_lost = self.when_lost, None
        if tell is not None:
            tell()

    # --- who keeps us waiting -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the first byte is owed."""
        super().connection_made(transport)
        self._wire = wire = self.transport
        assert wire is not None, "it was given just now"
        # Whatever the kernel does not take at once is a debt of the client: see core/web/deadlines.py.
        wire.set_write_buffer_limits(0)
        self._deadlines.first_byte.enter(self)
        said, self.said = self.said, b""
        if not said:
            return
        try:
            self.data_received(said)  # nothing is read from the transport before this returns
        except Exception as error:  # noqa: BLE001  # the loop would only tell, and leave the client waiting
            log("error", "connection_failed", error=error)
            self.fail()

    def pause_writing(self) -> None:
        """The kernel took no more of an answer: it must be read."""
        super().pause_writing()
        self._deadlines.answer.enter(self)

    def resume_writing(self) -> None:
        """The kernel has taken all of it."""
        super().resume_writing()
        self._deadlines.answer.leave(self)

    def cut(self, why: type[FlashproofError]) -> None:
        """End the connection; say why, if that is an answer to something."""
        wire = self._wire
        if wire is None:
            return
        CUTS.add(why.code)
        self._deadlines.head.leave(self)
        if issubclass(why, Refusal):
            REFUSALS.add(why.code)
            if not wire.is_closing():
                wire.write(closing(self._answers.refused(why)))
            self.force_close()
            return
        end = wire.get_extra_info("socket")
        if end is not None:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        wire.abort()

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
        sending = super().finish_response(request, resp, start_time)
        return self._send_last(sending) if self._deaf and not self._messages else sending

    async def _send_last(
        self, sending: Coroutine[Any, Any, tuple[web.StreamResponse, bool]]
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer to what was no request, and say that it is the last."""
        answered = await sending
        if self.transport is not None and not self.transport.is_closing():
            with contextlib.suppress(NotImplementedError):  # not every transport has two halves
                self.transport.write_eof()
        return answered

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Name what ended a connection, in one line and without a trace; a body that cannot be read is no news."""
        error = kw.get("exc_info")
        if isinstance(error, Exception) and not isinstance(error, RequestPayloadError):
            log("error", "connection_failed", error=error)


class Server(web.Server):
    """Makes the protocol of each connection."""

    def __init__(self, *args: Any, lane: Lane | None, leisure: Leisure, **kw: Any) -> None:
        """As aiohttp's own; ``lane``: None turns it off."""
        super().__init__(*args, **kw)
        self.lane, self.leisure = lane, leisure
        self.deadlines, self._answers = Deadlines(self._loop, leisure), Answers()

    def __call__(self) -> Protocol:
        """Return the protocol of a new connection."""
        return Protocol(
            self, lane=self.lane, deadlines=self.deadlines, answers=self._answers, loop=self._loop, **self._kwargs
        )


class Runner(web.AppRunner):
    """Runs an application behind our protocol and, unless it is None, the lane."""

    def __init__(self, app: web.Application, lane: Lane | None, leisure: Leisure | None = None, **kw: Any) -> None:
        super().__init__(app, **kw)
        self._lane, self._leisure = lane, leisure or Leisure()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return Server(
            made.request_handler,
            lane=self._lane,
            leisure=self._leisure,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,
        )
