"""The lean wire: each command is answered, or fails by itself in its own time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from core.backends import wire
from core.backends.valkey import ShardConnection
from core.backends.wire import Wire, connect
from core.errors import StoreUnavailable

LIMIT_S = 0.4  # half of it is more than this machine stands still


def with_a_server(
    folder: Path, patch: pytest.MonkeyPatch, test: Callable[[Wire, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    """Run a test with a connection to a server that says nothing by itself."""
    patch.setattr(wire, "STORE_TIMEOUT_S", LIMIT_S)

    async def main() -> None:
        ends: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        server = await asyncio.start_unix_server(lambda _, end: ends.put_nowait(end), folder / "s")
        async with server:
            line = await connect(f"unix://{folder / 's'}")
            end = await ends.get()
            async with asyncio.timeout(10):
                await test(line, end)
            line.close()
            end.close()

    asyncio.run(main())


async def seconds_until_late(line: Wire) -> float:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await line.command("PING")
    return time.monotonic() - began


def test_each_command_has_its_own_time_though_one_timer_looks_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: a command behind a late one that fails with it, or never."""

    async def test(line: Wire, _: asyncio.StreamWriter) -> None:
        first = asyncio.create_task(seconds_until_late(line))
        await asyncio.sleep(LIMIT_S / 2)
        second = asyncio.create_task(seconds_until_late(line))
        assert await first >= LIMIT_S * 0.9 and not second.done()
        assert LIMIT_S * 0.9 <= await second < LIMIT_S * 3

    with_a_server(tmp_path, monkeypatch, test)


def test_an_answer_in_time_is_no_less_one_because_the_timer_rings_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: a timer set for a command that was answered long ago and rings for the one under way."""

    async def test(line: Wire, end: asyncio.StreamWriter) -> None:
        for number in range(8):  # together twice the limit
            asked = asyncio.create_task(line.command("PING"))
            await asyncio.sleep(LIMIT_S / 4)
            end.write(b":%d\r\n" % number)
            assert await asked == number
        await asyncio.sleep(LIMIT_S * 1.5)
        assert line._timer is None, "nothing is under way, nothing to look after"
        assert await seconds_until_late(line) >= LIMIT_S * 0.9, "after a rest too"

    with_a_server(tmp_path, monkeypatch, test)


def test_who_waits_when_the_connection_ends_is_told_at_once_and_no_timer_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: a buyer who waits two seconds for a store that is gone."""

    async def test(line: Wire, end: asyncio.StreamWriter) -> None:
        asked = asyncio.create_task(line.command("PING"))
        await asyncio.sleep(0)
        end.transport.abort()
        with pytest.raises(ConnectionResetError):
            await asked
        assert line._timer is None and not line.is_open

    with_a_server(tmp_path, monkeypatch, test)


def test_a_store_that_says_nothing_is_unavailable_and_the_reason_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: "cannot be reached: " and nothing behind it, for an error without words of its own."""

    async def test(_: Wire, __: asyncio.StreamWriter) -> None:
        with pytest.raises(StoreUnavailable, match="reached: TimeoutError"):
            await ShardConnection(f"unix://{tmp_path / 's'}").command("PING")

    with_a_server(tmp_path, monkeypatch, test)
