"""The shop under measure: a whole deployment of its own, what its parts spend, and holding its projector still."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core.errors import Fault
from loadtests.shop.deployment import Deployment

_SAY_EVERY_S: Final = 1.0


class Progress:
    """A line on standard error whenever something begins, and every second while it lasts."""

    def __init__(self) -> None:
        self._began, self._said_at = time.monotonic(), 0.0

    def __call__(self, what: str) -> None:
        """Say what begins now."""
        self._said_at = time.monotonic()
        sys.stderr.write(f"[{self._said_at - self._began:5.1f} s] {what}\n")
        sys.stderr.flush()

    def still(self, what: str) -> None:
        """Say how far it is, unless something was said a moment ago."""
        if time.monotonic() - self._said_at >= _SAY_EVERY_S:
            self(what)


@contextlib.contextmanager
def a_shop(say: Progress) -> Iterator[Deployment]:
    """Start a deployment in a folder of its own; nothing is left of it afterwards.

    Raises:
        Fault: a part of it did not start, or ended before it was asked to.
    """
    with tempfile.TemporaryDirectory(prefix="flashproof-record-") as folder:
        say("starting a shop of its own")
        with Deployment(Path(folder)) as shop:
            shop.wait_ready()
            yield shop
            if shop.unplanned:
                died = shop.unplanned[0]
                raise Fault(f"{died.what} ended by itself in the run; nothing of it counts:\n{died.detail}")


@contextlib.contextmanager
def held(shop: Deployment) -> Iterator[None]:
    """Hold the projector still meanwhile."""
    pid = shop.pid("work")
    if pid is None:
        raise Fault("the projector is not running")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class Meter:
    """What each role of a shop has spent since this was made, in seconds of processor time."""

    def __init__(self, shop: Deployment) -> None:
        """Begin to count."""
        self._shop, self._before, self._own = shop, shop.cpu_seconds(), time.process_time()

    def read(self) -> dict[str, float]:
        """Return seconds by role; ``driver`` is this process."""
        now = self._shop.cpu_seconds()
        roles = {role: seconds - self._before[role] for role, seconds in now.items()}
        return roles | {"driver": time.process_time() - self._own}
