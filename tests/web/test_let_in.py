"""Who comes in from the porch: answered as if they had said it inside, and held outside only while no answer is due."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from any_request import conversations
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import HOT, place
from two_lanes import Answer, Line, Server, Two, read_answers

from core.web import porch
from core.web.porch import Newcomer, Porch
from core.web.protocol import Protocol


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    """Both servers, for all tests of this file."""
    both = Two()
    yield both
    both.close()


def let_in(server: Server, loop: Any, said: bytes) -> Line:
    """Return a connection that has said something in the porch."""
    protocol = server.factory()
    protocol.said = said
    return Line(loop, protocol)


@pytest.mark.parametrize("said", [*HOT.values(), place() + place(key="key-2"), place()[:-3], b"x\r\n\r\n"])
def test_what_was_said_in_the_porch_is_answered_as_what_is_said_inside(two: Two, said: bytes) -> None:
    """Stops: a first request that is lost, doubled, or left to a client that waits for its answer for ever."""

    async def inside(server: Server) -> tuple[Answer, ...]:
        return await answered(server.connect(), said)

    async def outside(server: Server) -> tuple[Answer, ...]:
        return await answered(let_in(server, two.loop, said), b"")

    async def answered(line: Line, more: bytes) -> tuple[Answer, ...]:
        line.feed(more)
        await two.loop.rest()
        await two.loop.sleep(0.05)
        line.feed(place(key="key-3"))
        await two.loop.sleep(0.05)
        answers = read_answers(bytes(line.sent))
        line.lose()
        await two.loop.rest()
        return answers

    assert two.both(outside) == two.both(inside)


@pytest.mark.parametrize("said", [b"", b"\r\n"])
def test_who_has_said_nothing_yet_still_owes_the_first_byte(two: Two, said: bytes) -> None:
    """Stops: an empty line that buys 75 s, in which nobody is waited for."""

    async def story(server: Server) -> int:
        line = let_in(server, two.loop, said)
        protocol = line.protocol
        assert isinstance(protocol, Protocol)
        await two.loop.rest()
        owing = len(protocol._deadlines.first_byte)
        line.lose()
        await two.loop.rest()
        return owing

    assert two.both(story) == 1


def test_the_first_answer_is_already_owed_to_be_read(two: Two) -> None:
    """Stops: who asked eight times in the porch and reads nothing, and has several large answers made at once."""

    async def story(server: Server) -> int | None:
        line = let_in(server, two.loop, place())
        await two.loop.rest()
        await two.loop.sleep(0.05)
        line.lose()
        await two.loop.rest()
        return line.limit_at_first

    assert two.both(story) == 0


def test_a_fault_in_the_first_look_ends_the_connection(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a client that waits for its answer because something of ours went wrong before there was a request."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Protocol, "data_received", fail)

    async def story(server: Server) -> bool:
        line = let_in(server, two.loop, place())
        await two.loop.rest()
        return line.closed

    assert two.both(story)


@settings(max_examples=300)
@given(conversations(), st.data())
def test_nobody_is_held_in_the_porch_whom_aiohttp_would_have_answered(two: Two, said: Any, data: Any) -> None:
    """Stops: a malformed request that hears of a deadline, seconds later, and not of what is wrong with it."""
    whole = b"".join(piece.data for piece in said)
    part = whole[: data.draw(st.integers(0, len(whole)))]
    if not is_held(part):
        return

    async def story(server: Server) -> bytes:
        line = server.connect()
        line.feed(part)
        await two.loop.rest()
        sent = bytes(line.sent)
        line.lose()
        await two.loop.rest()
        return sent

    assert two.run(story(two.plain)) == b""


def is_held(said: bytes) -> bool:
    """Return whether a porch waits for more behind these bytes."""
    if not said:
        return True
    newcomer = Newcomer(_no_porch(), socket.socket(), "")
    newcomer.connection.close()
    newcomer.data = said
    head = porch._bytes_of_head(newcomer)
    return head == 0 or (head > 0 and len(said) < porch._bytes_of_order(said, head))


def _no_porch() -> Porch:
    return Porch.__new__(Porch)


def test_what_is_held_is_held_for_a_reason() -> None:
    """Stops: the property above true of a porch that holds nobody."""
    assert is_held(place()[:40]) and is_held(place()[:-1]) and not is_held(place())
