"""One worker process as its parent sees it: started, serving, asked to leave, gone.

Why a pipe says that a worker serves: its end tells as much as its byte. A worker that dies before it serves closes the
pipe, so nobody waits for it until a deadline.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final

SERVES: Final = b"1"  # what a worker writes into the pipe once it accepts connections


class Child:
    """A worker process. Made by ``start``."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: int) -> None:
        """``pipe``: the end on which the worker says that it serves; closed here."""
        loop = asyncio.get_running_loop()
        self._process, self._pipe = process, pipe
        self._told = asyncio.Event()  # the pipe has said what it had to say
        self.pid = process.pid
        self.is_serving = False
        self.ended: asyncio.Task[int] = loop.create_task(process.wait())  # its result is the exit code
        self.replaced: asyncio.Future[None] = loop.create_future()
        loop.add_reader(pipe, self._hear)

    @property
    def is_starting(self) -> bool:
        """Whether it has neither come to serve nor ended."""
        return not self._told.is_set()

    def _hear(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe)
        self.is_serving = os.read(self._pipe, 1) == SERVES
        os.close(self._pipe)
        self._told.set()

    async def serves(self, within_s: float) -> bool:
        """Wait until it serves; return False if it ends before that, or does not in so many seconds."""
        try:
            async with asyncio.timeout(within_s):
                await self._told.wait()
        except TimeoutError:
            return False
        return self.is_serving

    async def left_seat(self) -> None:
        """Return when it has ended or another goes on in its place."""
        left: set[asyncio.Future[Any]] = {self.ended, self.replaced}
        await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)

    def stop(self) -> None:
        """Tell it that the server stops: it closes the queue with care, drains and leaves."""
        self._signal(signal.SIGTERM)

    def leave(self) -> None:
        """Tell it that others go on in its place: it leaves the queue to them, drains and leaves."""
        if not self.replaced.done():
            self.replaced.set_result(None)
        # One that does not serve yet has no handler for this signal, or serves nobody: then it ends at once.
        self._signal(signal.SIGUSR1)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def gone(self, within_s: float) -> bool:
        """Return when it has ended; False if it had to be killed after so many seconds."""
        await asyncio.wait({self.ended}, timeout=within_s)
        if self.ended.done():
            return True
        self.kill()
        await asyncio.wait({self.ended})
        return False


async def start(listening: int, parent: int, environment: Mapping[str, str]) -> Child:
    """Start a worker on the listening socket's descriptor.

    Args:
        listening: the socket it accepts connections from.
        parent: a pipe whose other end closes when this process is gone.
        environment: all of the worker's variables.

    Raises:
        OSError: no process can be had.
    """
    # Workers are started the way this process was, whatever stands before the verb.
    launcher = sys.orig_argv[: sys.orig_argv.index("serve")]
    heard, spoken = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *launcher,
            *("serve-worker", "--fd", str(listening), "--parent", str(parent), "--ready", str(spoken)),
            pass_fds=(listening, parent, spoken),
            stdin=asyncio.subprocess.DEVNULL,
            env=environment,
        )
    except BaseException:
        os.close(heard)
        raise
    finally:
        os.close(spoken)
    return Child(process, heard)
