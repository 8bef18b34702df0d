"""Stopping and dying: SIGTERM under load resets nobody, a killed worker is replaced, a killed parent leaves nothing."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil  # type: ignore[import-untyped]  # comes with locust
import pytest

from core.local.server import wait_until
from core.settings import DRAIN_MOST_S, to_environment
from loadtests.shop.deployment import CORE, free_ports
from loadtests.shop.parts import Command

if TYPE_CHECKING:
    from conftest import Face, Shop

PATIENCE_S = 20.0
CLIENTS = 250
POLLS = 20
LOAD_S = 1.0
STOP_MOST_S = DRAIN_MOST_S + 2


@pytest.fixture(scope="module")
def crowded(shop: Shop) -> Shop:
    """The common shop with something to sell to a crowd; what the crowd does not pay is free again soon."""
    shop.stock(3_000, sku="crowd", buyer_limit=100_000, hold_ms=2_000)
    return shop


@contextmanager
def another_server(shop: Shop, workers: int, folder: Path) -> Iterator[tuple[Face, Command]]:
    """One more `serve` on the shop's stores, ready, in the hands of the test; nothing of it is left at the end."""
    port, ops_port = free_ports(2)
    face = shop.face(msgspec.structs.replace(shop.settings, port=port, ops_port=ops_port))
    command = Command(
        [*CORE, "serve", "--workers", str(workers)],
        shop.deployment.environment() | to_environment(face.settings) | {"TMPDIR": str(folder)},
        folder / "serve.log",
    )
    command.start()
    try:
        until_ready(face, command, workers)
        yield face, command
    finally:
        command.kill()


def until_ready(face: Face, command: Command, workers: int) -> None:
    """Wait until a serve and each of its workers serves."""
    assert wait_until(face.is_ready, PATIENCE_S), command.log_file.read_text()
    assert wait_until(lambda: command.log_file.read_text().count("worker_ready") >= workers, PATIENCE_S)
    assert face.described.document


def family(command: Command) -> list[psutil.Process]:
    """Return the workers of a serve."""
    return list(psutil.Process(command.pid).children())


def gone(processes: list[psutil.Process]) -> bool:
    """Tell whether all have ended."""
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


class Crowd:
    """Clients that buy on kept connections, each its next order as soon as the last was answered."""

    def __init__(self, face: Face) -> None:
        self._host, self._port = face.settings.host, face.settings.port
        self._numbers = itertools.count()
        self.sent = self.answered = self.closed = self.refused = 0
        self.statuses: set[int] = set()
        self.lost: list[str] = []

    async def client(self) -> None:
        """Buy until the shop says that it closes, and on new connections until it lets nobody in."""
        while True:
            try:
                reader, writer = await asyncio.open_connection(self._host, self._port)
            except ConnectionError:
                self.refused += 1  # it has sent nothing
                return
            try:
                while await self._buy(reader, writer):
                    continue
            except (OSError, EOFError) as error:
                self.lost.append(repr(error))
            finally:
                writer.close()

    async def _buy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        number = next(self._numbers)
        body = b'{"sku":"crowd","buyer":"crowd-%d","quantity":1}' % number
        writer.write(
            b"POST /v1/orders HTTP/1.1\r\nHost: shop\r\nIdempotency-Key: %d\r\nContent-Length: %d\r\n\r\n%s"
            % (number, len(body), body)
        )
        self.sent += 1
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
        self.answered += 1
        self.statuses.add(int(head.split()[1]))
        closing = b"\r\nconnection: close" in head
        self.closed += closing
        return not closing


async def _stop_under_load(crowd: Crowd, pid: int) -> float:
    clients = [asyncio.create_task(crowd.client()) for _ in range(CLIENTS)]
    await asyncio.sleep(LOAD_S)
    assert not any(one.done() for one in clients), "the crowd left before the stop"
    os.kill(pid, signal.SIGTERM)
    told = time.monotonic()
    await asyncio.wait_for(asyncio.gather(*clients), STOP_MOST_S)
    return told


def test_sigterm_under_load_answers_everyone_and_resets_nobody(crowded: Shop, tmp_path: Path) -> None:
    """Stops: orders accepted whose buyers saw a reset, and long polls that hold up a rolling restart."""
    order = crowded.placed("plain")
    with another_server(crowded, 2, tmp_path) as (face, command), ThreadPoolExecutor(POLLS) as pool:
        pid = command.pid
        assert pid is not None
        polls = [pool.submit(face.track, order, 25) for _ in range(POLLS)]
        crowd = Crowd(face)
        told = asyncio.run(_stop_under_load(crowd, pid))
        for poll in polls:
            assert poll.result(timeout=STOP_MOST_S).json["state"] == "reserved"
        assert time.monotonic() - told < 5, "the polls were not answered at once"
        assert wait_until(lambda: not command.is_running(), STOP_MOST_S)
        assert time.monotonic() - told < STOP_MOST_S
        assert command.exit_code == 0
    assert crowd.lost == []
    assert crowd.answered == crowd.sent > CLIENTS
    assert crowd.closed >= crowd.refused == CLIENTS, "not everyone was told"
    assert crowd.statuses <= {201, 409}


def test_a_killed_worker_is_replaced_and_a_killed_parent_leaves_the_port(crowded: Shop, tmp_path: Path) -> None:
    """Stops: a shop that serves with half its workers, and orphans that hold the port of the next start."""
    with another_server(crowded, 2, tmp_path) as (face, command):
        victim, survivor = family(command)
        victim.kill()
        began = time.monotonic()
        while victim in family(command) or len(family(command)) < 2:
            assert face.place("plain").status in (201, 409), "the survivor and the kernel's queue serve everyone"
            assert time.monotonic() - began < PATIENCE_S
        until_ready(face, command, 3)
        assert survivor in family(command)
        assert "worker_died" in command.log_file.read_text()

        workers, parent = family(command), command.pid
        assert parent is not None
        os.kill(parent, signal.SIGKILL)
        assert wait_until(lambda: gone(workers), STOP_MOST_S), "workers outlived their parent"
        again = Command(
            [*CORE, "serve"], crowded.deployment.environment() | to_environment(face.settings), tmp_path / "again.log"
        )
        again.start()
        try:
            until_ready(face, again, 1)
            assert face.place("plain").status in (201, 409)
        finally:
            again.stop(STOP_MOST_S)
        assert again.exit_code == 0
