"""The porch: who has not asked waits outside, who has is let in with every byte, nobody is lost or counted twice."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BodyTimeout, ConnectionSilent, FlashproofError, HeadTimeout
from core.settings import BODY_MOST, HEAD_MOST
from core.telemetry import CUTS, REFUSALS
from core.web.deadlines import Deadlines
from core.web.leisure import Leisure
from core.web.porch import Porch

BODY: Final = b'{"sku":"gold","buyer":"ann","quantity":1}'
HEAD: Final = b"POST /v1/orders HTTP/1.1\r\nHost: shop\r\nIdempotency-Key: k\r\nContent-Length: 41\r\n\r\n"
LOOK: Final = b"GET /v1/products/gold HTTP/1.1\r\nHost: shop\r\n\r\n"

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the porch stands on Linux alone")


class Full:
    """An epoll of a kernel that has no room."""

    def register(self, *_: object) -> None:
        """Refuse."""
        raise OSError(28, "No space left on device")

    def fileno(self) -> int:
        """Return none."""
        return 1_000_000

    def close(self) -> None:
        """Do nothing."""


class Door:
    """A porch, and what became of those who came."""

    def __init__(self) -> None:
        """Open it on the running loop."""
        self.inside: list[tuple[str, bytes]] = []
        self.lost: list[str] = []
        self._sockets: list[socket.socket] = []
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop)
        self.porch = Porch(self.loop, self.deadlines, self._let_in, self.lost.append, Leisure())

    def _let_in(self, connection: socket.socket, address: str, said: bytes) -> None:
        self.inside.append((address, said))
        self._sockets.append(connection)

    def come(self, address: str = "a", said: bytes = b"") -> socket.socket:
        """Return the client's end of a connection that has said something before it was accepted."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = socket.create_connection(listening.getsockname(), 1.0)
            server, _ = listening.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if said:
            client.sendall(said)
        server.setblocking(False)
        self._sockets.append(client)
        self.porch.enter(server, address)
        return client

    def owing(self) -> dict[type[FlashproofError], int]:
        """Return how many owe what."""
        debts = self.deadlines
        return {debt.kind: len(debt) for debt in (debts.first_byte, debts.head, debts.body) if len(debt)}

    async def rest(self) -> None:
        """Let the loop see what was sent."""
        for _ in range(5):
            await asyncio.sleep(0.001)

    def shut(self) -> None:
        """Close all."""
        self.porch.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.close()


def at_a_door(story: Callable[[Door], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        door = Door()
        try:
            await story(door)
        finally:
            door.shut()

    asyncio.run(whole())


ASKED: Final = {
    "an order": HEAD + BODY,
    "a look at a product": LOOK,
    "two at once": LOOK + LOOK,
    "an order and more": HEAD + BODY + LOOK,
}
ODD: Final = {
    "no HTTP": b"SSH-2.0-x\r\n",
    "another version": b"GET / HTTP/9.9\r\n",
    "no version": b"GET /\r\nHost: x\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nBad\r\n",
    "a header with a space in its name": b"GET / HTTP/1.1\r\nBad Name: x\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nX: a\rb\r\n",
    "a zero": b"GET / HTTP/1.1\r\nX: a\0b\r\n",
    "a line without end": b"GET /" + b"a" * 9_000,
    "two hosts": HEAD.replace(b"\r\nHost", b"\r\nHost: a\r\nHost"),
    "an unknown method": b"BREW /pot HTTP/1.1\r\n",
    "a line end first": b"\r\nGET / HTTP/1.1\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nHost: shop\n\n",
    "more than a head may have": b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_MOST,
    "a body elsewhere": b"POST /v1/other HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
    "a body in chunks": HEAD.replace(b"Content-Length: 41", b"Transfer-Encoding: chunked") + b"1\r\n",
    "a body asked about": HEAD.replace(b"\r\nHost", b"\r\nExpect: 100-continue\r\nHost"),
    "two lengths": HEAD.replace(b"\r\nHost", b"\r\nContent-Length: 3\r\nHost"),
    "a length that is none": HEAD.replace(b": 41", b": +41"),
    "a body that is too long": HEAD.replace(b": 41", b": %d" % (BODY_MOST + 1)),
}


@pytest.mark.parametrize("said", [*ASKED.values(), *ODD.values()], ids=[*ASKED, *ODD])
def test_who_has_asked_or_is_odd_is_let_in_at_once_with_all_that_came(said: bytes) -> None:
    """Stops: an honest client that waits for a deadline, and a judgement made where nothing is to be judged."""

    async def story(door: Door) -> None:
        door.come("early", said)
        late = door.come("late")
        late.sendall(said)
        await door.rest()
        assert door.inside == [("early", said), ("late", said)]
        late.sendall(said)
        await door.rest()
        assert door.porch._epoll.poll(0) == [], "it is nobody's business here any more what comes from who is inside"
        assert door.owing() == {}
        assert door.lost == []

    at_a_door(story)


@settings(max_examples=60)
@given(st.sampled_from([HEAD + BODY, LOOK]), st.data())
def test_a_request_cut_anywhere_is_let_in_when_its_last_byte_is_here_and_not_before(raw: bytes, data: Any) -> None:
    """Stops: a byte that is lost, doubled or turned round on the way in, or a half request that costs a whole one."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=5)))
    pieces = [raw[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    async def story(door: Door) -> None:
        client = door.come()
        for piece in pieces[:-1]:
            client.sendall(piece)
            await door.rest()
            assert door.inside == []
            assert sum(door.owing().values()) == 1
        client.sendall(pieces[-1])
        await door.rest()
        assert door.inside == [("a", raw)]
        assert door.owing() == {}

    at_a_door(story)


@pytest.mark.parametrize(
    ("said", "owes"),
    [
        (b"", ConnectionSilent),
        (b"P", HeadTimeout),
        (b"POST ", HeadTimeout),
        (HEAD[:30], HeadTimeout),
        (HEAD[:-1], HeadTimeout),
        (HEAD, BodyTimeout),
        (HEAD + BODY[:-1], BodyTimeout),
    ],
)
@pytest.mark.parametrize("early", [True, False])
def test_who_keeps_us_waiting_owes_one_thing_at_a_time(said: bytes, owes: type[FlashproofError], early: bool) -> None:
    """Stops: a slow body that is given the time of a head besides, or one that nobody watches."""

    async def story(door: Door) -> None:
        client = door.come(said=said if early else b"")
        if said and not early:
            client.sendall(said)
            await door.rest()
        assert door.owing() == {owes: 1}

    at_a_door(story)


@pytest.mark.parametrize(
    ("said", "why", "status"), [(HEAD[:30], HeadTimeout, b"408"), (HEAD + b"{", BodyTimeout, b"408")]
)
def test_who_is_late_hears_why_and_is_counted_out_once(said: bytes, why: type[FlashproofError], status: bytes) -> None:
    """Stops: a client that never learns what it did wrong, or an address whose connections are never given back."""

    async def story(door: Door) -> None:
        client = door.come("late", said)
        before = CUTS.counts[why.code], REFUSALS.counts[why.code]
        next(iter(door.porch._here.values())).cut(why)
        assert (CUTS.counts[why.code], REFUSALS.counts[why.code]) == (before[0] + 1, before[1] + 1)
        answer = client.recv(4_096)
        assert answer.split(b" ")[1] == status
        assert b"\r\nConnection: close\r\n" in answer
        assert client.recv(1) == b""
        client.close()
        await door.rest()
        assert door.lost == ["late"]
        assert door.inside == []
        assert door.porch._here == {}

    at_a_door(story)


def test_who_goes_on_sending_as_it_is_cut_off_hears_why_all_the_same() -> None:
    """Stops: an answer held back for the end of the connection, and forgotten because a byte had come meanwhile."""

    async def story(door: Door) -> None:
        client = door.come(said=LOOK[:-9])
        (newcomer,) = door.porch._here.values()
        client.sendall(LOOK[-9:-5])  # nobody has read it yet
        newcomer.cut(HeadTimeout)
        assert client.recv(4_096).startswith(b"HTTP/1.1 408 ")

    at_a_door(story)


def test_a_client_whose_body_was_too_slow_has_time_to_read_that_but_not_for_ever() -> None:
    """Stops: an answer lost to a reset because more of the body was on its way; a client that stays by dribbling."""

    async def story(door: Door) -> None:
        client = door.come("slow", HEAD + b"{")
        newcomer = next(iter(door.porch._here.values()))
        newcomer.cut(BodyTimeout)
        client.sendall(BODY)
        await door.rest()
        assert door.lost == door.inside == []
        assert (len(door.deadlines.leaving), door.owing()) == (1, {})
        assert client.recv(4_096).split(b" ")[1] == b"408"
        newcomer.cut(BodyTimeout)  # by the deadline of who leaves
        assert door.lost == ["slow"]
        assert client.recv(1) == b""

    at_a_door(story)


def test_who_says_nothing_is_reset_and_who_goes_is_forgotten() -> None:
    """Stops: connections that stay when their client has gone."""

    async def story(door: Door) -> None:
        silent = door.come("silent")
        next(iter(door.porch._here.values())).cut(ConnectionSilent)
        assert door.lost == ["silent"]
        with pytest.raises(ConnectionResetError):
            silent.recv(1)
        door.come("gone", b"GET /").close()
        door.come("gone at once").close()
        await door.rest()
        assert sorted(door.lost) == ["gone", "gone at once", "silent"]
        assert door.owing() == {}

    at_a_door(story)


def test_where_the_kernel_watches_no_more_the_connection_is_closed_and_the_others_are_served() -> None:
    """Stops: a connection that nobody looks at and nobody cuts off, and a worker that cannot drain because of it."""

    async def story(door: Door) -> None:
        door.porch._epoll.close()  # nothing can be registered with it any more
        door.porch._epoll = Full()
        assert door.come("unseen").recv(1) == b""
        assert door.lost == ["unseen"]
        door.come("asks", LOOK)
        assert door.inside == [("asks", LOOK)]

    at_a_door(story)


def test_when_the_porch_is_closed_everybody_is_let_in_with_what_they_said() -> None:
    """Stops: a roll that resets whoever was about to ask."""

    async def story(door: Door) -> None:
        for address, said in (("silent", b""), ("half", HEAD[:20]), ("bodiless", HEAD)):
            door.come(address, said)
        door.come("told", HEAD)
        list(door.porch._here.values())[-1].cut(BodyTimeout)
        door.porch.close()
        assert sorted(door.inside) == [("bodiless", HEAD), ("half", HEAD[:20]), ("silent", b"")]
        assert door.lost == ["told"]
        assert door.owing() == {}
        door.porch = Porch(door.loop, door.deadlines, lambda *_: None, lambda _: None, Leisure())  # for its end

    at_a_door(story)
