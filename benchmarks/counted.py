"""What the servers themselves have counted: Valkey's INFO, PostgreSQL's log. No client is believed here."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.ceiling.wire import Wire
from core.backends import postgres
from core.backends.valkey import ROOT

_SCRIPTS: Final = ("evalsha", "eval")
_LOGGED: Final = re.compile(rb"LOG:  duration: [0-9.]+ ms  (parse|bind|execute|statement)\b")
_SETTLE_S: Final = 0.2  # for sessions to hear of a new setting, and for the last requests of closed connections


class Counts(msgspec.Struct, frozen=True):
    """Valkey's counters at one instant."""

    live: int  # orders that are not finished
    scripts: int  # script calls
    reads: int  # of client sockets: at least one for each call that waits for its answer
    commands: dict[str, int]  # calls by command, those from inside scripts among them


class ValkeyCounts:
    """A connection that reads the counters, and knows how often it has asked itself."""

    def __init__(self, url: str) -> None:
        """Connect."""
        self._wire = Wire(url)
        self._asked = 0

    def ask(self, *command: bytes | str | int) -> Any:
        """Send a command of the measurement's own; it is not counted."""
        self._asked += 1
        return self._wire.ask(*command)

    def look(self) -> Counts:
        """Return the counters, without what this connection asked."""
        live = int(self.ask("HLEN", f"{ROOT}:live"))
        told = fields(self.ask("INFO", "stats", "commandstats"))
        commands = {
            name.removeprefix("cmdstat_"): int(value.partition(",")[0].removeprefix("calls="))
            for name, value in told.items()
            if name.startswith("cmdstat_")
        }
        return Counts(
            live=live,
            scripts=sum(commands.get(name, 0) for name in _SCRIPTS),
            reads=int(told["total_reads_processed"]) - self._asked,
            commands=commands,
        )

    def memory(self) -> int:
        """Return the bytes Valkey uses, without the buffers of its clients and of its append-only file."""
        time.sleep(_SETTLE_S)
        told = fields(self.ask("INFO", "memory"))
        return int(told["used_memory"]) - int(told["mem_clients_normal"]) - int(told["mem_aof_buffer"])

    def close(self) -> None:
        """Drop the connection."""
        self._wire.close()


def fields(info: bytes) -> dict[str, str]:
    """Return the lines of an INFO answer as names and values."""
    pairs = (line.partition(":") for line in info.decode().splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


def settle() -> None:
    """Wait until what was under way when a driver left is decided."""
    time.sleep(_SETTLE_S)


class Trips(msgspec.Struct, frozen=True):
    """Statements PostgreSQL has noted, by the step of the protocol."""

    parse: int = 0  # a new prepared statement: a round trip of its own
    bind: int = 0  # travels with its execute
    execute: int = 0
    statement: int = 0  # BEGIN, COMMIT and what else goes as plain text

    @property
    def total(self) -> int:
        """Round trips at most (an executemany is one trip and several executes)."""
        return self.parse + self.execute + self.statement


def trips(log: bytes) -> Trips:
    """Return the statements in a piece of PostgreSQL's log."""
    found = _LOGGED.findall(log)
    return Trips(*[found.count(step) for step in (b"parse", b"bind", b"execute", b"statement")])


class PostgresLog:
    """PostgreSQL's log, with every statement in it from now on, its values left out."""

    def __init__(self, dsn: str, path: Path) -> None:
        """Let the server log each statement into ``path``, which is its log already."""
        asyncio.run(_log_everything(dsn))
        self._path = path
        settle()

    def mark(self) -> int:
        """Return where the log ends now."""
        return self._path.stat().st_size

    def since(self, mark: int) -> Trips:
        """Return the statements noted behind a mark."""
        with self._path.open("rb") as log:
            log.seek(mark)
            return trips(log.read())


async def _log_everything(dsn: str) -> None:
    connection = await postgres.connect(dsn)
    try:
        await connection.execute("ALTER SYSTEM SET log_min_duration_statement = 0")
        await connection.execute("ALTER SYSTEM SET log_parameter_max_length = 0")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        connection.terminate()
