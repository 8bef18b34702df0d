"""Waking up on time under gevent: libev's epoll waits in whole milliseconds, too coarse for arrivals.

On Linux a timerfd (timerfd_create(2)) wakes the loop within some tens of µs and costs no spinning; elsewhere
libev's own timer must do, and the wake lag that every run records shows the difference. What is rung for runs in
the hub itself, before everything else that is ready in the same turn of the loop; and since one turn may have
hundreds of replies to handle, whoever handles them looks between two whether the time has come (``Urgent``).

Where arrivals are so dense that several go out together, the loop sleeps until the next of them instead of waking for
every reply on the way: what comes meanwhile is read together. On two shared cores each wake-up begins with cold caches
and costs as much as the work it is for. What it costs is told: the read lag, by the kernel's own stamps.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.monkey import get_original

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_NEVER_NS = 2**63
_sleep = get_original("time", "sleep")
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)


class _Itimerspec(ctypes.Structure):
    """``struct itimerspec``: interval, then first expiry; both (seconds, nanoseconds)."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Urgent:
    """What should not wait until the loop's turn is over. In the hub: ``if monotonic_ns() >= it.at_ns: it.ring()``."""

    __slots__ = ("at_ns", "left", "ring")

    def __init__(self) -> None:
        """Begin with nothing urgent."""
        self.at_ns = _NEVER_NS
        self.left = 0  # who has work left over from this turn, so that the loop must not rest
        self.ring: Callable[[], None] = lambda: None


class Alarm:
    """Calls ``ring`` in the hub whenever the time has come. Close it after use."""

    def __init__(self, ring: Callable[[], None], urgent: Urgent) -> None:
        """Make the timer, or fall back where there is none.

        Args:
            ring: must not wait for anything.
            urgent: told the time, so that others in the hub may ring early in a long turn.
        """
        self._loop = gevent.get_hub().loop
        self._ring, self._fd, self._spec = ring, -1, _Itimerspec()
        self._settime: Any = None
        self._urgent, urgent.ring = urgent, ring
        self._watcher: Any = None
        self._rest_ns = self._looked_ns = 0
        self._resting: Any = self._loop.prepare(ref=False, priority=self._loop.MINPRI)  # behind gevent's own callbacks
        self._resting.start(self._rest)
        if sys.platform == "linux":
            # Not CDLL: it lets go of the interpreter for a call of a microsecond, thousands of times a second.
            libc: Any = ctypes.PyDLL(None)
            if hasattr(libc, "timerfd_create"):
                self._fd = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
                self._settime, self._spec_at = libc.timerfd_settime, ctypes.addressof(self._spec)
                self._settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        if self._fd >= 0:
            self._watcher = self._loop.io(self._fd, 1, priority=self._loop.MAXPRI)
            self._watcher.start(self._rang)

    def set_us(self, wait_us: int, *, rest_us: int = 0) -> None:
        """Ring in ``wait_us`` µs (at least 1); an earlier setting is forgotten.

        ``rest_us``: the loop may sleep until then, but not for longer than this from one look at its sockets to the
        next: a turn that took so long itself is followed by the next at once.
        """
        self._rest_ns = rest_us * 1000
        wake_ns = time.monotonic_ns() + max(1, wait_us) * 1000
        self._urgent.at_ns = wake_ns
        if self._fd < 0:
            if self._watcher is not None:
                self._watcher.close()
            self._watcher = self._loop.timer(wait_us / 1e6, priority=self._loop.MAXPRI)
            self._watcher.start(self._ring, update=True)
            return
        self._spec.value_s, self._spec.value_ns = divmod(wake_ns, 1_000_000_000)
        if self._settime(self._fd, _ABSOLUTE, self._spec_at, None):
            raise OSError("timerfd_settime")

    def close(self) -> None:
        """Give the timer back."""
        self._urgent.at_ns = _NEVER_NS
        self._resting.close()
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _rest(self) -> None:
        if self._rest_ns and not self._urgent.left:
            now_ns = time.monotonic_ns()
            left_ns = min(self._urgent.at_ns, self._looked_ns + self._rest_ns) - now_ns
            if left_ns > 0:
                _sleep(left_ns / 1e9)
                now_ns = time.monotonic_ns()
            self._looked_ns = now_ns

    def _rang(self) -> None:
        if time.monotonic_ns() >= self._urgent.at_ns:  # nobody else rang meanwhile
            self._ring()  # sets it anew, which takes back that it rang: no read(2) for that
