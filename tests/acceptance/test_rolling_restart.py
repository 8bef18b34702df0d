"""SIGHUP replaces the workers one after the other, and nobody who buys meanwhile sees a failed or reset request."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil  # type: ignore[import-untyped]  # comes with locust
import pytest

from core.local.server import wait_until
from core.settings import DRAIN_MOST_S, to_environment
from loadtests.shop.deployment import free_ports
from loadtests.shop.parts import Command
from loadtests.trials import rolling

if TYPE_CHECKING:
    from conftest import Face, Shop

PATIENCE_S = 20.0
ROLLS = 2
ROLL_MOST_S = 15.0
AT_ONCE_S = 4.0  # well below what a worker would wait for idle connections, 10 s
HANGS_MOST_S = 5.0  # a new worker that hangs is given up after that
LATER_S = 1.5
SHORT_DRAIN_S = 3.0  # of a `serve` that is given less patience with idle connections than DRAIN_MOST_S
CROWD = 50
# A `flashproof` whose new workers end, or never come to serve, while the file $FAULT says so; its patience is given.
LAUNCHER = (
    sys.executable,
    "-c",
    """
import os, pathlib, sys, time
import core.settings
core.settings.DRAIN_MOST_S = float(os.environ["DRAIN_S"])
fault = pathlib.Path(os.environ["FAULT"])
if "serve-worker" in sys.argv:
    if fault.exists():
        sys.exit("a release that does not start") if fault.read_text() == "ends" else time.sleep(600)
else:
    import core.web.server
    core.web.server._SERVES_MOST_S = float(os.environ["SERVES_MOST_S"])
import core.__main__
sys.exit(core.__main__.main())
""",
)


class Server:
    """One more `serve` on the shop's stores, whose next workers can be made unfit."""

    def __init__(self, shop: Shop, workers: int, folder: Path, serves_most_s: float, drain_s: float) -> None:
        port, ops_port = free_ports(2)
        self.face: Face = shop.face(msgspec.structs.replace(shop.settings, port=port, ops_port=ops_port))
        self.fault = folder / "fault"
        environment = shop.deployment.environment() | to_environment(self.face.settings) | {"DRAIN_S": str(drain_s)}
        self.command = Command(
            [*LAUNCHER, "serve", "--workers", str(workers)],
            environment | {"TMPDIR": str(folder), "FAULT": str(self.fault), "SERVES_MOST_S": str(serves_most_s)},
            folder / "serve.log",
        )

    @property
    def pid(self) -> int:
        assert self.command.pid is not None, self.command.log_file.read_text()
        return self.command.pid

    @property
    def workers(self) -> set[int]:
        return rolling.workers_of(self.pid)

    def hang_up(self, times: int = 1) -> None:
        for _ in range(times):
            os.kill(self.pid, signal.SIGHUP)
            time.sleep(0.01)  # two signals that wait together are one

    def told(self, event: str) -> int:
        """Return how often an event stands in the log."""
        return self.command.log_file.read_text().count(f'"event":"{event}"')

    def until_told(self, event: str, times: int = 1, most_s: float = ROLL_MOST_S) -> None:
        assert wait_until(lambda: self.told(event) >= times, most_s), self.command.log_file.read_text()

    def sells(self) -> None:
        for _ in range(4):
            assert self.face.place("plain").status in (201, 409)

    def stops_at_once(self) -> None:
        """Send SIGTERM and assert that nothing is left soon, and nothing went wrong."""
        family = [psutil.Process(pid) for pid in self.workers]
        os.kill(self.pid, signal.SIGTERM)
        assert wait_until(lambda: not self.command.is_running(), AT_ONCE_S), self.command.log_file.read_text()
        assert self.command.exit_code == 0
        assert self.told("stopped") == 1
        assert not [one for one in family if one.is_running()]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((self.face.settings.host, self.face.settings.port), 1)


@contextmanager
def another_server(
    shop: Shop, workers: int, folder: Path, serves_most_s: float = PATIENCE_S, drain_s: float = DRAIN_MOST_S
) -> Iterator[Server]:
    """A ready `serve` in the hands of the test; nothing of it is left at the end."""
    server = Server(shop, workers, folder, serves_most_s, drain_s)
    server.command.start()
    try:
        assert wait_until(server.face.is_ready, PATIENCE_S), server.command.log_file.read_text()
        yield server
    finally:
        server.command.kill()


@contextmanager
def kept_connection(server: Server) -> Iterator[socket.socket]:
    """A connection on which one request was answered, idle since then."""
    settings = server.face.settings
    with socket.create_connection((settings.host, settings.port), 5) as connection:
        head = ask(connection)
        assert b"connection: close" not in head
        yield connection


def ask(connection: socket.socket) -> bytes:
    """Send one small request and return the head of its answer in lower case; the whole answer is read."""
    connection.sendall(b"GET /v1/orders/none HTTP/1.1\r\nHost: shop\r\n\r\n")
    with connection.makefile("rb") as received:
        head = b"".join(iter(received.readline, b"\r\n")).lower()
        received.read(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
    return head


def queues_a_crowd(server: Server, worker: int) -> bool:
    """Tell whether a crowd gets into the kernel's queue at once while the worker that should accept it is busy."""
    address = (server.face.settings.host, server.face.settings.port)
    os.kill(worker, signal.SIGSTOP)
    try:
        with ExitStack() as crowd:
            for _ in range(CROWD):
                crowd.enter_context(socket.create_connection(address, 0.9))  # a dropped handshake is repeated after 1 s
    except TimeoutError:
        return False
    finally:
        os.kill(worker, signal.SIGCONT)
    return True


async def roll_under_load(server: Server, seen: rolling.Seen, buyers: rolling.Buyers) -> list[set[int]]:
    """Roll several times while buyers buy; return the workers' ids before the first roll and after each."""
    settings = server.face.settings
    load = asyncio.create_task(buyers.run(kept=5, thinking=5, fresh=4))
    readiness = asyncio.create_task(rolling.watch_readiness(settings.ops_host, settings.ops_port, seen))
    generations = [server.workers]
    for _ in range(ROLLS):
        await asyncio.sleep(0.2)
        await rolling.roll_once(server.pid, server.command.log_file, ROLL_MOST_S)
        generations.append(server.workers)
    await asyncio.sleep(0.2)
    buyers.end()
    await load
    readiness.cancel()
    with suppress(asyncio.CancelledError):
        await readiness
    return generations


def test_rolls_under_load_fail_no_request_and_reset_nobody(shop: Shop, tmp_path: Path) -> None:
    """Stops: a release whose buyers see reset or unanswered orders, or kept connections closed under them."""
    shop.stock(3_000, sku="rolled", buyer_limit=2, hold_ms=2_000)
    with another_server(shop, 2, tmp_path) as server:
        settings = server.face.settings
        buyers = rolling.Buyers(settings.host, settings.port, "rolled")
        generations = asyncio.run(roll_under_load(server, buyers.seen, buyers))
        server.stops_at_once()
    seen = buyers.seen
    assert seen.faults == []
    assert (seen.failed, seen.reset, seen.not_ready, seen.closed_idle) == (0, 0, 0, 0)
    assert seen.answered == seen.requests > 500
    assert seen.told_to_leave > ROLLS, "the rolls met no kept connection"
    assert len(set().union(*generations)) == 2 * (ROLLS + 1), f"a worker stayed: {generations}"
    assert server.told("worker_died") == 0


def test_a_connection_idle_in_a_roll_gets_one_more_answer_that_closes_it(shop: Shop, tmp_path: Path) -> None:
    """Stops: idle connections closed just as their client sends, the reset that every hasty roll deals out."""
    with another_server(shop, 1, tmp_path) as server, kept_connection(server) as connection:
        old = server.workers
        server.hang_up()
        server.until_told("worker_ready", 2)
        time.sleep(LATER_S)
        assert old < server.workers, "the old worker has left its connection"
        server.sells()  # on new connections, of which the old worker gets none
        assert queues_a_crowd(server, *server.workers - old), "the old worker has shrunk the queue"
        assert b"connection: close" in ask(connection)
        assert connection.recv(1) == b""
        server.until_told("roll_ended", most_s=AT_ONCE_S)
        assert not old & server.workers


def test_a_connection_nobody_uses_holds_up_a_roll_only_so_long(shop: Shop, tmp_path: Path) -> None:
    """Stops: one forgotten connection that keeps the old release running."""
    with another_server(shop, 1, tmp_path, drain_s=SHORT_DRAIN_S) as server, kept_connection(server) as connection:
        server.hang_up()
        server.until_told("worker_ready", 2)
        began = time.monotonic()
        connection.settimeout(SHORT_DRAIN_S + AT_ONCE_S)
        assert connection.recv(1) == b"", "closed, not reset"
        assert time.monotonic() - began > SHORT_DRAIN_S - 1
        server.until_told("roll_ended", most_s=AT_ONCE_S)


def test_a_worker_that_cannot_serve_leaves_the_old_ones_serving(shop: Shop, tmp_path: Path) -> None:
    """Stops: a broken release that takes the shop down."""
    with another_server(shop, 2, tmp_path, HANGS_MOST_S) as server:
        old = server.workers
        for times, fault in enumerate(("ends", "hangs"), 1):
            server.fault.write_text(fault)
            server.hang_up()
            server.until_told("roll_stopped", times)
            assert server.told("worker_not_ready") == times
            assert wait_until(lambda: server.workers == old, AT_ONCE_S), "something is left, or an old worker went"
            assert server.face.is_ready()
            server.sells()
        server.fault.unlink()
        server.hang_up()
        server.until_told("roll_ended")
        assert not old & server.workers
        assert server.told("worker_died") == 0
        server.stops_at_once()


def test_sigterm_while_a_new_worker_starts_ends_everything(shop: Shop, tmp_path: Path) -> None:
    """Stops: a stop that waits for a worker which never comes, or leaves it behind on the port."""
    with another_server(shop, 2, tmp_path) as server:
        server.fault.write_text("hangs")
        server.hang_up()
        assert wait_until(lambda: len(server.workers) == 3, AT_ONCE_S)
        server.stops_at_once()


def test_sigterm_while_an_old_worker_drains_ends_everything(shop: Shop, tmp_path: Path) -> None:
    """Stops: a stop that waits for the idle connections of a roll."""
    with another_server(shop, 1, tmp_path) as server, kept_connection(server):
        server.hang_up()
        server.until_told("worker_ready", 2)
        time.sleep(LATER_S)
        assert len(server.workers) == 2
        server.stops_at_once()


def test_hang_ups_in_a_roll_are_remembered_as_one(shop: Shop, tmp_path: Path) -> None:
    """Stops: a release tool that repeats itself and keeps the shop rolling for an hour."""
    with another_server(shop, 1, tmp_path) as server:
        server.hang_up()
        server.until_told("roll_began")
        server.hang_up(times=5)
        server.until_told("roll_ended", 2)
        time.sleep(LATER_S)
        assert (server.told("roll_began"), server.told("roll_ended")) == (2, 2)
        server.sells()
