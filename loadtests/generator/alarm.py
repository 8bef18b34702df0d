"""Waking up on time under gevent: libev's epoll waits in whole milliseconds, too coarse for arrivals.

On Linux a timerfd (timerfd_create(2)) wakes the loop within some tens of µs and costs no spinning; elsewhere
``gevent.sleep`` must do, and the wake lag that every run records shows the difference.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any

import gevent
from gevent.socket import wait

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)


class _Itimerspec(ctypes.Structure):
    """``struct itimerspec``: interval, then first expiry; both (seconds, nanoseconds)."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Alarm:
    """Sleeps one greenlet for µs. Close it after use."""

    def __init__(self) -> None:
        """Make the timer, or fall back where there is none."""
        self._fd, self._watcher, self._libc, self._spec = -1, None, None, _Itimerspec()
        if sys.platform == "linux":
            libc: Any = ctypes.CDLL(None, use_errno=True)
            if hasattr(libc, "timerfd_create"):
                self._fd = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._fd >= 0:
            self._libc = libc
            self._watcher = gevent.get_hub().loop.io(self._fd, 1)

    def sleep_us(self, wait_us: int) -> None:
        """Let the other greenlets run for ``wait_us`` microseconds (at least 1)."""
        if self._libc is None:
            gevent.sleep(wait_us / 1e6)
            return
        wake_ns = time.monotonic_ns() + max(1, wait_us) * 1000
        self._spec.value_s, self._spec.value_ns = divmod(wake_ns, 1_000_000_000)
        if self._libc.timerfd_settime(self._fd, 1, ctypes.byref(self._spec), None):  # 1: an absolute instant
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        wait(self._watcher)
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # woken a moment early: the caller looks at the clock anyway

    def close(self) -> None:
        """Give the timer back."""
        if self._fd >= 0:
            if self._watcher is not None:
                self._watcher.close()
            os.close(self._fd)
            self._fd = -1
