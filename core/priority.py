"""Stepping back for others who share the processor: what a buyer waits for goes first."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def step_back(pid: int, niceness: int) -> None:
    """Lower a process's claim on the processor; what it starts inherits that.

    Where Linux groups processes by session (``sched_autogroup_enabled``, sched(7)), a nice value counts only among the
    processes of one session, and between sessions that of the group does. So a process that leads a session has its
    group step back too; one that does not would take along whoever it shares the session with.
    """
    os.setpriority(os.PRIO_PROCESS, pid, niceness)
    if os.getsid(pid) == pid:
        with contextlib.suppress(OSError):  # no such grouping here, or not ours to set
            Path(f"/proc/{pid}/autogroup").write_text(str(niceness), encoding="ascii")
