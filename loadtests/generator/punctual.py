"""Asking the kernel to run the generator when it is due: an instrument that waits for a CPU measures the queue for it.

On a machine that load, shop and stores share, the generator gets in line behind the very processes it times, and an
arrival that is due waits some milliseconds for its turn. Niceness has no effect across sessions (sched_autogroup).
So the generator asks for ``SCHED_FIFO`` (sched(7)) at the lowest real-time priority: it runs as soon as it has
something to do, and gives way as soon as it has not. That takes nothing from anyone but the CPU it would have used
anyway, only sooner; what it used stands in the report. It needs root or CAP_SYS_NICE; without, it runs as all others
do, the report says so, and the wake lag decides whether the run may be believed.

It cannot hang the machine: the kernel leaves other processes a twentieth of each second, the children of this process
do not inherit it, and after one second of CPU without a pause (``RLIMIT_RTTIME``) it is an ordinary process again.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from typing import Any, Final

PRIORITY: Final = 1  # the lowest of the real-time ones
BUSY_MOST_US: Final = 1_000_000  # CPU without a pause, after which it gives real time back
_RLIMIT_RTTIME: Final = 15  # Linux; Python has no name for it


def ask_real_time() -> str:
    """Ask for real-time scheduling of this thread; return what it runs as: ``fifo`` or ``other``."""
    if not hasattr(os, "sched_setscheduler") or not hasattr(os, "SCHED_RESET_ON_FORK"):
        return "other"
    try:
        signal.signal(signal.SIGXCPU, _give_back)
        _, most = resource.getrlimit(_RLIMIT_RTTIME)
        resource.setrlimit(_RLIMIT_RTTIME, (BUSY_MOST_US, most))
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except (OSError, ValueError):  # not permitted, or not the main thread
        return "other"
    return "fifo"


def give_real_time_back(granted: str) -> str:
    """Be an ordinary process again; return how the thread ran: as ``granted``, unless that was lost meanwhile."""
    if granted != "fifo":
        return granted
    kept = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
    _give_back()
    return granted if kept else "fifo, then other"


def _give_back(*_: Any) -> None:
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
