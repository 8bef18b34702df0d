"""The same answers over a real socket on uvloop: what the made-up connections of the other tests cannot say."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop
from spoken import HOT, cancel, place, status
from two_lanes import Answer, Server, read_answers

SLOW_S = 0.01
QUICK = [said for kind, said in HOT.items() if kind != "status, waiting"]
SAID = [*QUICK, status(0, "?wait=0.02"), cancel(), place("limit_reached"), place(key="x" * 200), *QUICK]


async def talk(server: Server, address: str, pieces: list[bytes], gap_s: float) -> tuple[Answer, ...]:
    """Send pieces, say that no more comes behind the last answer, and return what was answered."""
    reader, writer = await asyncio.open_unix_connection(address)
    sent = b""
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(gap_s)
    async with asyncio.timeout(10):
        while sent.count(b"HTTP/1.1 ") < len(SAID) or not sent.endswith(b"}"):
            sent += await reader.read(65_536)
    writer.close()
    return read_answers(sent)


@pytest.mark.parametrize("size", [0, 1, 97, 700, 100_000])
def test_a_pipeline_over_a_socket_is_answered_in_turn_and_the_same(tmp_path: Path, size: int) -> None:
    """Stops: a connection that is not read on after an answer, on the transport of the real loop."""
    whole = b"".join(SAID)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)] if size else SAID

    async def story(with_lane: bool) -> tuple[tuple[Answer, ...], int]:
        loop: Any = asyncio.get_running_loop()
        server = Server(loop, with_lane)
        await server.start(60.0)
        server.calls.slow_s = SLOW_S
        address = str(tmp_path / f"lane-{with_lane}")
        listening = await loop.create_unix_server(server.factory, address)
        try:
            return await talk(server, address, pieces, 0.0 if size else SLOW_S / 2), server.taken
        finally:
            listening.close()
            await server.stop()

    fast, taken = uvloop.run(story(True))
    plain, _ = uvloop.run(story(False))
    assert len(fast) == len(SAID)
    assert fast == plain
    assert taken >= (1 if size == 0 else 0)
