"""The parts a deployment is made of, seen alike: what runs, and can be stopped, killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psutil  # type: ignore[import-untyped]  # comes with locust

from core.local.lifeline import Lifeline

LOG_TAIL_BYTES = 2_000


class Part(Protocol):
    """An embedded store or one of our own long-running commands."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""

    @property
    def exit_code(self) -> int | None:
        """How it last ended; negative: by that signal."""

    @property
    def log_file(self) -> Path:
        """Where its output goes."""

    def is_running(self) -> bool:
        """Tell whether it has not ended."""

    def start(self) -> None:
        """Start it."""

    def stop(self, timeout_s: float) -> None:
        """Stop it gracefully, by force after `timeout_s` seconds."""

    def kill(self) -> None:
        """SIGKILL it, with all its workers."""


class Command:
    """One long-running command of ours, in a process group of its own."""

    def __init__(self, argv: list[str], environment: Mapping[str, str], log_file: Path) -> None:
        """Take the command line, the whole environment, and the file its output is appended to."""
        self._argv = argv
        self._environment = dict(environment)
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the group's leader while it runs."""
        return self._process.pid if self._process is not None and self.is_running() else None

    @property
    def exit_code(self) -> int | None:
        """How it last ended; negative: by that signal. None while it runs or before its first start."""
        return None if self._process is None else self._process.poll()

    @property
    def log_file(self) -> Path:
        """Where standard output and standard error go, appended over restarts."""
        return self._log_file

    def is_running(self) -> bool:
        """Tell whether the leader has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; workers that outlived their leader are killed first, for they hold its ports."""
        self.kill()
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self._lifeline = Lifeline(-self._process.pid, signal.SIGKILL)

    def stop(self, timeout_s: float) -> None:
        """SIGTERM the leader, who ends its workers; SIGKILL the whole group after `timeout_s` seconds."""
        if self._process is not None and self.is_running():
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL the whole group."""
        if self._lifeline is None or self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._lifeline.dismiss()
        self._lifeline = None


def cpu_seconds(pid: int | None) -> float:
    """Return user and system seconds of a process and everything below it, also of children already gone."""
    if pid is None:
        return 0.0
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                # The times of children count only those a parent has reaped, so nothing is counted twice.
                total += sum(process.cpu_times()[:4])
    return total


class Family:
    """A process and all below it, metered often and for little: who belongs to it is told, not looked for each time."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._members: dict[int, psutil.Process] = {}
        self._spent_s: float | None = None  # user and system seconds of all, at the last look
        with contextlib.suppress(psutil.Error):
            self._members[pid] = psutil.Process(pid)

    def adopt(self, below: Mapping[int, Sequence[psutil.Process]]) -> None:
        """Take all processes below the root; ``below`` has every process by its parent."""
        found = {self.pid: self._members[self.pid]} if self.pid in self._members else {}
        ahead = list(found)
        while ahead:
            for process in below.get(ahead.pop(), ()):
                if process.pid not in found:
                    # The one known already keeps what psutil has read of it once.
                    found[process.pid] = self._members.get(process.pid, process)
                    ahead.append(process.pid)
        self._members = found

    def spent(self) -> tuple[float | None, int]:
        """Return processor seconds since the last call (None in the first) and resident bytes now; 0 bytes: gone.

        The time of a child that ended is in its parent's as soon as it was reaped.
        """
        total_s, rss_bytes = 0.0, 0
        for process in self._members.values():
            with contextlib.suppress(psutil.Error):
                total_s += sum(process.cpu_times()[:4])
                rss_bytes += process.memory_info().rss
        before_s, self._spent_s = self._spent_s, total_s
        return (None if before_s is None else max(0.0, total_s - before_s)), rss_bytes


def log_tail(path: Path) -> str:
    """Return the end of a log, to show why something failed."""
    with contextlib.suppress(OSError), path.open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_TAIL_BYTES))
        return log.read().decode(errors="replace").strip()
    return ""


def worker_of(pid: int | None) -> int | None:
    """Return the first child of a process, e.g. the worker that a server's parent started, or None."""
    if pid is None:
        return None
    try:
        children = psutil.Process(pid).children()
    except psutil.Error:
        return None
    return int(children[0].pid) if children else None
