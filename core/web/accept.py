"""Accepting connections in bursts.

Why not the loop's own server: libuv (under uvloop) accepts one connection a turn of the loop since its version 1.45. In
a flash crowd a turn is long, because thousands of sockets are ready in it, so new buyers waited in the kernel's queue
for many seconds while those already inside were served: 443 of 40,000 attempts timed out after 10 s in the run that
showed it. Here one readiness of the listening socket accepts many, for a share of the turn that keeps it short.

Who has too many connections already is told so and let go on the spot, before anything is made for them; all others
wait in the porch (``core/web/porch.py``) until they have asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import select
import socket
from typing import Final

from core.errors import TooManyConnections
from core.settings import CONNECTIONS_MOST, FILES_KEPT, RECEIVE_BUFFER, SEND_BUFFER, UNACKNOWLEDGED_MOST_S
from core.telemetry import CUTS, REFUSALS, log
from core.web.addresses import Addresses
from core.web.plain import Answers, closing
from core.web.porch import Porch
from core.web.protocol import Server
from core.web.share import Share

_BURST_MOST: Final = 256  # in one turn of the loop
_PAUSE_S: Final = 0.05  # when no more connections can be had
_LAST_CALL_S: Final = 0.1  # for handshakes under way when the queue was closed
_SHORT_OF_FILES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """Gives each accepted connection to a protocol of its own."""

    def __init__(self, listening: socket.socket, server: Server, addresses: Addresses) -> None:
        """``addresses`` counts the open connections; above the limit of all new ones wait in the kernel's queue."""
        self._listening, self._server, self._addresses = listening, server, addresses
        self._most, self._answers = _connections_most(), Answers()
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[object]] = set()
        self._open = False
        self._share, self._queue = Share(), select.poll()  # the queue is asked whether it is empty
        self._queue.register(listening, select.POLLIN)
        self._porch: Porch | None = None

    def start(self) -> None:
        """Begin to accept."""
        _bound_the_kernel(self._listening)
        self._open = True
        if hasattr(select, "epoll"):  # Linux
            server = self._server
            self._porch = Porch(self._loop, server.deadlines, self._let_in, self._addresses.leave, server.leisure)
        self._loop.add_reader(self._listening.fileno(), self._ready)

    async def stop(self) -> None:
        """Accept no more and close the listening socket, so that nobody who could send a request is reset.

        Closing resets whoever waits in the kernel's queue. So its length is set to nothing first: then it holds one at
        most, who else knocks is left to knock again (and refused after the close), and who is in is accepted.
        """
        self._listening.listen(0)
        await asyncio.sleep(_LAST_CALL_S)
        self._open = False
        self._loop.remove_reader(self._listening.fileno())
        self._ready(all_of_them=True)
        await self._close()

    async def leave(self) -> None:
        """Accept no more, and leave the queue as it is to the others who hold the socket: it is theirs too.

        Shrinking it would drop their clients' handshakes; as they hold it, nobody who waits in it is reset.
        """
        self._open = False
        self._loop.remove_reader(self._listening.fileno())
        await self._close()

    async def _close(self) -> None:
        self._listening.close()
        if self._porch is not None:
            self._porch.close()
            self._porch = None
        await asyncio.gather(*self._starting)

    def _ready(self, *, all_of_them: bool = False) -> None:
        """Accept who waits, as far as the turn's share goes."""
        room, share = self._most - self._addresses.open, self._share
        share.begin()
        for number in range(room if all_of_them else min(_BURST_MOST, room)):
            if number and not all_of_them and share.is_over():
                if self._queue.poll(0):
                    share.leave_off()
                return
            try:
                connection, address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SHORT_OF_FILES:
                    log("error", "cannot_accept", error=error, why=error.strerror)
                    self._pause()
                    return
                continue  # the client was gone before it was accepted
            connection.setblocking(False)
            if not self._addresses.enter(address[0]):
                self._turn_away(connection)
                continue
            if self._porch is not None:
                self._porch.enter(connection, address[0])
            else:
                self._let_in(connection, address[0], b"")
        if room <= 0:
            self._pause()

    def _let_in(self, connection: socket.socket, address: str, said: bytes) -> None:
        task = self._loop.create_task(self._begin(connection, address, said))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _begin(self, connection: socket.socket, address: str, said: bytes) -> None:
        protocol = self._server()
        protocol.said = said
        protocol.when_lost = lambda: self._addresses.leave(address)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError:
            connection.close()  # the client was gone before it was served
            protocol.lost()

    def _turn_away(self, connection: socket.socket) -> None:
        """Answer a connection that is one too many, and close it. Three system calls; nothing of it is kept."""
        CUTS.add(TooManyConnections.code)
        REFUSALS.add(TooManyConnections.code)
        with contextlib.suppress(OSError):  # it may be gone already
            connection.send(closing(self._answers.refused(TooManyConnections)))
        connection.close()

    def _pause(self) -> None:
        """Look away for a moment: the socket stays ready, and asking again at once would only burn the processor."""
        self._loop.remove_reader(self._listening.fileno())
        self._loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._open:
            self._loop.add_reader(self._listening.fileno(), self._ready)


def _connections_most() -> int:
    """Return how many connections this process may have open, after asking the system for as many as it gives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MOST + FILES_KEPT
    if soft < wanted:
        soft = min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(CONNECTIONS_MOST, max(soft - FILES_KEPT, 1))


def _bound_the_kernel(listening: socket.socket) -> None:
    """Bound what the kernel keeps for each connection, in bytes and in time; connections inherit it.

    By itself Linux keeps up to 4 MiB of answers for a client that does not read, and waits 15 minutes for it.
    """
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(UNACKNOWLEDGED_MOST_S * 1000))
