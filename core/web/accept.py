"""Accepting connections in bursts.

Why not the loop's own server: libuv (under uvloop) accepts one connection a turn of the loop since its version 1.45. In
a flash crowd a turn is long, because thousands of sockets are ready in it, so new buyers waited in the kernel's queue
for many seconds while those already inside were served: 443 of 40,000 attempts timed out after 10 s in the run that
showed it. Here one readiness of the listening socket accepts all that wait, up to a limit that keeps the turn short.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

from core.settings import CONNECTIONS_MOST
from core.telemetry import log

_BURST_MOST: Final = 256  # some milliseconds of work
_PAUSE_S: Final = 0.05  # when no more connections can be had
_LAST_CALL_S: Final = 0.1  # for handshakes under way when the queue was closed
_SHORT_OF_FILES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """Gives each accepted connection to a protocol of its own."""

    def __init__(
        self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol], connections: Callable[[], int]
    ) -> None:
        """``connections`` tells how many are open; above the limit new ones wait in the kernel's queue."""
        self._listening, self._protocol, self._connections = listening, protocol, connections
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[object]] = set()
        self._open = False

    def start(self) -> None:
        """Begin to accept."""
        self._open = True
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
        self._ready()
        self._listening.close()
        await asyncio.gather(*self._starting)

    async def leave(self) -> None:
        """Accept no more, and leave the queue as it is to the others who hold the socket: it is theirs too.

        Shrinking it would drop their clients' handshakes; as they hold it, nobody who waits in it is reset.
        """
        self._open = False
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()
        await asyncio.gather(*self._starting)

    def _ready(self) -> None:
        room = CONNECTIONS_MOST - self._connections() - len(self._starting)
        for _ in range(min(_BURST_MOST, room)):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SHORT_OF_FILES:
                    log("error", "cannot_accept", error=error, why=error.strerror)
                    self._pause()
                    return
                continue  # the client was gone before it was accepted
            connection.setblocking(False)
            task = self._loop.create_task(self._begin(connection))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
        if room <= 0:
            self._pause()

    async def _begin(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()  # the client was gone before it was served

    def _pause(self) -> None:
        """Look away for a moment: the socket stays ready, and asking again at once would only burn the processor."""
        self._loop.remove_reader(self._listening.fileno())
        self._loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._open:
            self._loop.add_reader(self._listening.fileno(), self._ready)
