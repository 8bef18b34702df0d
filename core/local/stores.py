"""Both embedded stores together: what a laptop, the tests and `flashproof prove` run on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from core.local.postgres import EmbeddedPostgres
from core.local.server import START_MOST_S, STOP_MOST_S, EmbeddedServer
from core.local.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedServer", "EmbeddedValkey", "LocalStores"]


class LocalStores:
    """A Valkey and a PostgreSQL on unix sockets below one directory; data stays when they stop.

    The embedded PostgreSQL trusts whoever reaches its socket; the folder around it lets nobody else in.
    """

    def __init__(self, directory: Path, *, durable_fsync: bool = True) -> None:
        """Make the folders; start nothing.

        Args:
            directory: where the data lives; made if missing.
            durable_fsync: False makes stores the shop refuses to sell on (tests of that refusal).

        Raises:
            BadInput: a wheel is missing. UnfitStore: a folder is somebody else's.
        """
        self.directory = directory
        self.valkey = EmbeddedValkey(directory, durable_fsync=durable_fsync)
        self.postgres = EmbeddedPostgres(directory, durable_fsync=durable_fsync)

    @property
    def valkey_url(self) -> str:
        """The address for FLASHPROOF_VALKEY_URL."""
        return self.valkey.url

    @property
    def postgres_dsn(self) -> str:
        """The address for FLASHPROOF_POSTGRES_DSN."""
        return self.postgres.dsn

    @property
    def servers(self) -> tuple[EmbeddedServer, EmbeddedServer]:
        """Both servers."""
        return self.valkey, self.postgres

    def start(self, timeout_s: float = START_MOST_S) -> None:
        """Start both at once and return when both take clients; on failure stop both.

        Raises:
            UnfitStore: one is already run by another process, or does not come up.
        """
        try:
            with ThreadPoolExecutor(max_workers=len(self.servers)) as pool:
                starts = [pool.submit(server.start, timeout_s) for server in self.servers]
            for start in starts:
                start.result()
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout_s: float = STOP_MOST_S) -> None:
        """Stop both gracefully, by force after `timeout_s` seconds; leave the data. May be called again."""
        with ThreadPoolExecutor(max_workers=len(self.servers)) as pool:
            stops = [pool.submit(server.stop, timeout_s) for server in self.servers]
        for stop in stops:
            stop.result()

    def remove(self) -> None:
        """Stop both and delete their data."""
        for server in self.servers:
            server.remove()

    def __enter__(self) -> Self:
        """Start both."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop both."""
        self.stop()
