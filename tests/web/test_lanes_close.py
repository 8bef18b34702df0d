"""When a connection ends: the same in both lanes, nothing lost, nobody left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from pure_stores import RECORDED, an_order_id
from spoken import HOST, HOT, callback, cancel, place, product, request, status
from two_lanes import SOON_S, Answer, Line, Server, Two, codes, read_answers

IDLE_S = 0.2  # an idle connection is closed after that
SLOW_S = 1.0  # the time a slow store takes: longer than IDLE_S
UNDER_WAY = {
    "place": place(),
    "place, refused": place("sold_out"),
    "callback": callback(),
    "callback, refused": callback("amount_mismatch"),
    "callback, of old": callback("late_of_old", 6),
    "status": status(),
    "status, waiting": status(0, "?wait=5"),
    "status with keys": status(6),
    "cancel": cancel(),
}


@pytest.fixture
def two() -> Iterator[Two]:
    """Both servers, new: a test may stop them."""
    both = Two(IDLE_S)
    yield both
    both.close()


@pytest.fixture
def lasting() -> Iterator[Two]:
    """The same, where no connection is ever idle for too long: what closes one there is the stop alone."""
    both = Two()
    yield both
    both.close()


def answers(line: Line) -> tuple[Answer, ...]:
    return read_answers(bytes(line.sent))


def closes(answer: Answer) -> bool:
    return ("connection", "close") in answer.headers


async def begun(two: Two, server: Server, said: Sequence[bytes]) -> list[Line]:
    """Have requests under way, each on a connection of its own, at a slow store."""
    server.calls.slow_s = SLOW_S
    lines = [server.connect() for _ in said]
    for line, one in zip(lines, said, strict=True):
        line.feed(one)
    await two.loop.rest()
    assert server.under_way == len(said)
    return lines


# --- a worker that stops ------------------------------------------------------------------------------------


def test_what_is_under_way_when_a_worker_stops_is_answered_and_closes(lasting: Two) -> None:
    """Stops: an answer lost in a stop, or a connection that stays open to a worker about to leave."""

    async def story(server: Server) -> list[tuple[Answer, ...]]:
        lines = await begun(lasting, server, list(UNDER_WAY.values()))
        server.drain()
        for _ in range(400):
            await lasting.loop.sleep(0.01)
            assert all(line.closed for line in lines if line.sent), "an answer went out, and its connection stayed"
        assert server.under_way == server.tracking.waiters.count == 0
        assert all(line.closed for line in lines)
        return [answers(line) for line in lines]

    heard = lasting.both(story)
    assert [codes(one) for one in heard] == [[201], [409], [200], [422], [200], [200], [200], [200], [200]]
    assert all(closes(one[0]) for one in heard)
    assert lasting.fast.taken == len(UNDER_WAY) - 1, "the lane had them all but the cancellation"


@pytest.mark.parametrize("kind", [*HOT, "cancel"])
def test_what_arrives_while_a_worker_stops_is_answered_and_closes(lasting: Two, kind: str) -> None:
    """Stops: a request on a connection kept alive that a stopping worker drops, or keeps open."""
    said = HOT.get(kind, cancel())

    async def story(server: Server) -> tuple[object, ...]:
        line, used = server.connect(), server.connect()
        used.feed(place())
        await lasting.loop.rest()
        await server.browsing.product("plain")
        server.drain()
        for one in (line, used):
            one.feed(said)
        await lasting.loop.sleep(SLOW_S)
        assert line.closed
        assert used.closed
        assert server.under_way == 0
        return answers(line), answers(used)

    alone, behind = lasting.both(story)
    assert [closes(answer) for answer in alone] == [True]
    assert [closes(answer) for answer in behind] == [False, True]


def test_a_request_behind_the_last_answer_is_never_begun(lasting: Two) -> None:
    """Stops: an order made for a client that is told in the same breath that its connection is over."""

    async def story(server: Server) -> tuple[object, ...]:
        lines = await begun(lasting, server, [place(), status(0, "?wait=5"), callback("amount_mismatch")])
        for line in lines:
            line.feed(place("behind", "behind"))
        server.drain()
        await lasting.loop.sleep(5 * SLOW_S)
        return [answers(line) for line in lines], server.calls.done, [line.closed for line in lines]

    heard, done, closed = lasting.both(story)
    assert [codes(one) for one in heard] == [[201], [200], [422]]  # type: ignore[attr-defined]
    assert closed == [True, True, True]
    assert "behind" not in str(done)


@pytest.mark.parametrize("kind", HOT)
def test_what_arrives_on_a_connection_that_is_being_closed_is_not_begun(two: Two, kind: str) -> None:
    """Stops: an order made on a connection that a worker is just about to cut, whose answer nobody gets."""

    async def story(server: Server) -> tuple[object, ...]:
        await server.browsing.product("plain")
        line = server.connect()
        await two.loop.rest()
        line.protocol.close()  # type: ignore[attr-defined]  # as aiohttp's runner does before it leaves
        line.feed(HOT[kind])
        await two.loop.sleep(1.0)
        line.lose()
        return answers(line), tuple(server.calls.done)

    assert two.both(story) == ((), ())


@pytest.mark.parametrize("kind", ["place", "status", "product"])
def test_a_client_that_does_not_read_gets_no_more_than_one_answer_ahead(two: Two, kind: str) -> None:
    """Stops: answers piled up in a worker's memory for a client that takes none."""

    async def story(server: Server) -> tuple[int, int]:
        await server.browsing.product("plain")
        line = server.connect()
        await two.loop.rest()
        line.protocol.pause_writing()
        for _ in range(5):
            line.feed(HOT[kind])
            await two.loop.rest()
        ahead = len(answers(line))
        line.protocol.resume_writing()
        await two.loop.rest()
        line.lose()
        return ahead, len(answers(line))

    ahead, all_in_all = two.both(story)
    assert ahead <= 1
    assert all_in_all == 5


def test_a_client_that_goes_while_its_request_waits_behind_orders_leaves_nothing_under_way(two: Two) -> None:
    """Stops: a worker that believes for ever that something is under way, or that less than nothing is."""

    async def story(server: Server) -> int:
        server.others.come = True
        for _ in range(3):  # at least two of them wait
            line = server.connect()
            line.feed(cancel())
            await two.loop.rest()
            line.lose()
        server.others.come = False
        await two.loop.sleep(SOON_S)
        return server.under_way

    assert two.both(story) == 0


# --- an idle connection -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["place", "status", "callback", "product", "cancel"])
def test_a_connection_is_closed_when_it_has_been_idle_for_its_time(two: Two, kind: str) -> None:
    """Stops: a connection used by the lane alone that is never closed, or is closed in use."""
    said = HOT.get(kind, cancel())

    async def story(server: Server) -> tuple[int, float]:
        await server.browsing.product("plain")
        line, begin = server.connect(), two.loop.time()
        for _ in range(10):
            line.feed(said)
            await two.loop.sleep(0.9 * IDLE_S)
            assert not line.closed
        await two.loop.sleep(3 * IDLE_S)
        assert line.closed
        return len(answers(line)), round(line.closed_at - begin, 3)

    assert two.both(story) == (10, round(9 * 0.9 * IDLE_S + IDLE_S, 3))


def test_a_connection_that_never_asks_is_closed(two: Two) -> None:
    """Stops: a stranger who holds a connection for nothing, or with half a request, for ever."""
    for said in (b"", b"P", place()[:40], b"\r\n"):

        async def story(server: Server, said: bytes = said) -> float:
            line, begin = server.connect(), two.loop.time()
            line.feed(said)
            await two.loop.sleep(100.0)
            assert line.closed
            assert server.under_way == 0
            return round(line.closed_at - begin, 3)

        assert two.both(story) <= 100.0


@pytest.mark.parametrize("kind", UNDER_WAY)
def test_a_connection_whose_answer_is_under_way_is_not_idle(two: Two, kind: str) -> None:
    """Stops: a buyer who waits for a slow store, or for the delivery, cut off by the timer of idle connections."""

    async def story(server: Server) -> tuple[tuple[Answer, ...], bool]:
        (line,) = await begun(two, server, [UNDER_WAY[kind]])
        while server.under_way:
            await two.loop.sleep(0.01)
            assert not line.closed
        await two.loop.sleep(0.5 * IDLE_S)
        assert not line.closed, "idle only since its answer"
        await two.loop.sleep(IDLE_S)
        return answers(line), line.closed

    heard, closed = two.both(story)
    assert len(heard) == 1
    assert closed


# --- a client that goes away --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", UNDER_WAY)
@pytest.mark.parametrize("more", [b"", b"x", place("behind", "behind")])
def test_a_client_that_goes_away_leaves_nothing_behind(two: Two, kind: str, more: bytes) -> None:
    """Stops: a ticket or a waiter that outlives its client: the worker then never drains, and its memory fills."""

    async def story(server: Server) -> list[object]:
        for error in (None, ConnectionResetError()):
            (line,) = await begun(two, server, [UNDER_WAY[kind]])
            await two.loop.sleep(SLOW_S / 2)
            line.feed(more)
            line.lose(error)
            await two.loop.rest()
            assert server.under_way == server.tracking.waiters.count == 0
            await two.loop.sleep(10 * SLOW_S)
            assert server.under_way == server.tracking.waiters.count == 0
            assert not line.sent
        return server.calls.done

    assert "behind" not in str(two.both(story))


def test_a_crowd_that_goes_away_leaves_nothing_behind(two: Two) -> None:
    """Stops: one client's end that takes another's answer with it."""

    async def story(server: Server) -> list[tuple[Answer, ...]]:
        said = [place(key=f"key-{n}") for n in range(20)] + [status(0, "?wait=5")] * 20
        lines = await begun(two, server, said)
        for line in lines[::2]:
            line.lose()
        await two.loop.rest()
        assert (server.under_way, server.tracking.waiters.count) == (20, 10)
        await two.loop.sleep(10 * SLOW_S)
        assert server.under_way == server.tracking.waiters.count == 0
        return [answers(line) for line in lines]

    heard = two.both(story)
    assert [len(one) for one in heard] == [0, 1] * 20


# --- a buyer who waits --------------------------------------------------------------------------------------


def test_a_buyer_who_waits_is_answered_when_the_order_moves(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a wake that one lane does not hear, or an answer that tells the state of before."""

    async def story(server: Server) -> tuple[object, ...]:
        monkeypatch.delitem(RECORDED, 0, raising=False)
        line, begin = server.connect(), two.loop.time()
        line.feed(status(0, "?wait=5"))
        await two.loop.sleep(1.0)
        server.tracking.waiters.wake(an_order_id(0))  # too early: nothing has moved
        server.tracking.waiters.wake(an_order_id(1))
        await two.loop.rest()
        assert not line.sent
        monkeypatch.setitem(RECORDED, 0, "delivered")
        server.tracking.waiters.wake(an_order_id(0))
        await two.loop.rest()
        assert server.under_way == server.tracking.waiters.count == 0
        return answers(line), round(two.loop.time() - begin, 3)

    heard, after_s = two.both(story)
    assert b"KEY-1" in heard[0].body  # type: ignore[index]
    assert after_s == 1.0


def test_lines_of_the_slow_way_are_not_the_lanes_to_close(two: Two) -> None:
    """Stops: the lane's timer or its end of a stop cutting what aiohttp has under way on the same connection."""

    async def story(server: Server) -> tuple[Answer, ...]:
        line = server.connect()
        line.feed(place())
        await two.loop.rest()
        server.calls.slow_s = SLOW_S
        line.feed(cancel())
        await two.loop.sleep(SLOW_S / 2)
        line.feed(product() + request("GET /nothing HTTP/1.1", [HOST]))
        await two.loop.sleep(2 * SLOW_S)
        return answers(line)

    assert codes(two.both(story)) == [201, 200, 200, 404]
