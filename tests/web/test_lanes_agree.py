"""The lane and aiohttp give the same answers, whatever is sent, however it arrives and whatever the stores say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from any_request import ODD_HEADERS, conversations
from hypothesis import given, settings
from hypothesis import strategies as st
from pure_stores import FATES, FAULTS, PAID, PLACED
from spoken import (
    HOST,
    HOT,
    callback,
    cancel,
    order_body,
    payment_body,
    place,
    product,
    raw,
    request,
    signature,
    status,
)  # fmt: skip
from two_lanes import Answer, Piece, Server, Two, codes, read_answers

from core.backends import line as waiting_line
from core.backends.batches import Batches
from core.backends.limit import Limit
from core.backends.shares import Shares
from core.errors import StoreUnavailable
from core.sale.orders import waiters
from core.sale.payments.port import Report
from core.settings import BODY_MOST
from core.web import problems

FRESH = ("plain",)
SLOW_S = 0.1  # the time a slow store takes
KINDS = ("place", "callback", "status", "product")
PAIRS = [("place", "status"), ("callback", "place"), ("product", "product"), ("status, waiting", "product")]


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    """Both servers, for all tests of this file: what one leaves behind, the next one meets."""
    both = Two()
    yield both
    both.close()


def test_any_conversation_gets_the_same_answers_in_both_lanes(two: Two) -> None:
    """Stops: a request that the lane reads otherwise than aiohttp, or answers though aiohttp would refuse it."""
    before = two.fast.taken

    @settings(max_examples=400)
    @given(conversations(), st.sampled_from([0.0, 0.0, SLOW_S]), st.sampled_from([(), FRESH]))
    def agree(pieces: Sequence[Piece], slow_s: float, fresh: Sequence[str]) -> None:
        two.agree(*pieces, slow_s=slow_s, fresh=fresh)

    agree()
    assert two.fast.taken - before > 100, "hardly anything was compared"


# --- the lane is used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HOT)
def test_a_hot_request_is_answered_by_the_lane_alone(two: Two, kind: str) -> None:
    """Stops: a lane that takes nothing, so that every comparison here is of aiohttp with itself."""
    handled = two.fast.handled, two.plain.handled
    taken, heard = two.taken(HOT[kind], fresh=FRESH)
    assert taken == len(heard.answers) == 1
    assert (two.fast.handled, two.plain.handled) == (handled[0], handled[1] + 1)
    assert heard.open_later


def test_hot_requests_on_one_connection_are_all_the_lanes(two: Two) -> None:
    """Stops: a connection that leaves the lane after its first request."""
    taken, heard = two.taken(*[Piece(said, 1.0) for said in HOT.values()], product(), fresh=FRESH)
    assert len(heard.answers) == len(HOT) + 1
    assert taken == len(HOT) - 1  # a product asked about too long ago is aiohttp's to look up, and then fresh again


OTHERS = {
    "a cancellation": cancel(),
    "an unknown path": request("GET /nothing HTTP/1.1", [HOST]),
    "the description": request("GET /openapi.json HTTP/1.1", [HOST]),
    "a foreign token": status().replace(b"GET /v1/orders/00", b"GET /v1/orders/01"),
    "broken JSON": place().replace(b'{"sku"', b'["sku"'),
    "a forged callback": callback().replace(b"v1=", b"v1=0").replace(b"0\r\nContent-L", b"\r\nContent-L"),
    "a refused payment": callback("amount_mismatch"),
    "a leading line end": b"\r\n" + place(),
    "a connection kept with HTTP/1.0": place().replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_connection_comes_back_to_the_lane_behind_a_whole_request_for_aiohttp(two: Two, other: str) -> None:
    """Stops: one refused request that costs its connection the lane, or an answer out of turn around it."""
    seen = two.fast.handled
    _, heard = two.taken(place(), OTHERS[other], place("sold_out"), status())
    assert len(heard.answers) == 4
    assert [codes(heard.answers)[at] for at in (0, 2, 3)] == [201, 409, 200]
    assert two.fast.handled == seen + 1, "the others are the lane's"


# --- whatever stands beside ---------------------------------------------------------------------------------


def beside(said: bytes, line: bytes) -> list[bytes]:
    """Return a request with one more line in its head: first, and last."""
    first, _, rest = said.partition(b"\r\n")
    head, end, body = said.partition(b"\r\n\r\n")
    return [first + b"\r\n" + line + b"\r\n" + rest, head + b"\r\n" + line + end + body]


@pytest.mark.parametrize("kind", KINDS)
def test_any_odd_header_beside_a_hot_request_is_answered_the_same(two: Two, kind: str) -> None:
    """Stops: a header that aiohttp refuses, or does something about, and the lane passes over."""
    for name, value in ODD_HEADERS:
        line = raw(name) + b": " + raw(value)
        first, last = beside(HOT[kind], line)
        for said in (first, last, beside(first, line)[1]):
            two.agree(said, place(), fresh=FRESH)


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_headers_is_answered_the_same(two: Two, kind: str) -> None:
    """Stops: more headers than aiohttp reads, let in because they are short."""
    for number in (*range(50, 62), *range(120, 132)):
        lines = b"\r\n".join([b"X-%d: a" % each for each in range(number)])
        two.agree(beside(HOT[kind], lines)[1], place(), fresh=FRESH)


@pytest.mark.parametrize("kind", KINDS)
def test_any_header_that_stands_twice_is_answered_the_same(two: Two, kind: str) -> None:
    """Stops: the first of two values taken where aiohttp takes the last, or neither."""
    for line in (*HOT[kind].split(b"\r\n\r\n")[0].split(b"\r\n")[1:], b"User-Agent: a", b"Content-Type: a"):
        name, _, value = line.partition(b": ")
        twice = [line, line.lower(), name.upper() + b":" + value, name + b": another", name + b":", name + b": 1"]
        for more in twice:
            for once in beside(HOT[kind], line) if line not in HOT[kind] else [HOT[kind]]:
                for said in beside(once, more):
                    two.agree(said, place(), fresh=FRESH)


# --- whatever the stores say --------------------------------------------------------------------------------


def test_every_word_of_a_store_is_told_the_same(two: Two) -> None:
    """Stops: an outcome, a fault or a count that one lane knows and the other does not."""
    words = {
        "place": [place(sku) for sku in (*PLACED, *FAULTS, "mute", "remembered")],
        "callback": [callback(event, fate) for event in (*PAID, *FAULTS, "mute") for fate in (0, 6, 20, 21, 22)],
        "status": [status(fate, query) for fate in FATES for query in ("", "?wait=0.2")],
    }
    for kind, said in words.items():
        for one in said:
            taken, heard = two.taken(one)
            assert (taken, len(heard.answers)) == (1, 1), (kind, one)


def test_overload_is_told_and_counted_the_same(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: a full list that one lane forgets to refuse, or refuses without the time to come back."""
    for server in (two.fast, two.plain):
        for batches in (server.orders.places, server.orders.payments, server.orders.tracks):
            monkeypatch.setattr(batches, "_waiting_most", 0)
            monkeypatch.setattr(batches, "_room", 0)
    for drawing in (problems, waiting_line):  # both lanes draw the time to come back by the same function
        monkeypatch.setattr(drawing, "random", lambda: 0.5)
    undecoded = place().replace(b'{"sku"', b'["sku"')  # nobody looks into an order that is refused anyway
    for said in (place(), undecoded, callback(), status(), status(0, "?wait=1")):
        heard = two.agree(said, said)
        assert codes(heard.answers) == [503, 503]
        assert ("retry-after", "2") in heard.answers[0].headers
    monkeypatch.undo()
    monkeypatch.setattr(problems, "random", lambda: 0.0)
    monkeypatch.setattr(waiters, "WAITERS_MOST", 0)
    assert codes(two.agree(status(0, "?wait=1"), status()).answers) == [503, 200]


def test_with_no_room_left_by_one_sku_the_others_are_served_and_told_the_same(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: a lane that shuts the door on all for one flood, or calls overload what it knows to be sold out."""
    for server in (two.fast, two.plain):
        places = server.orders.places
        monkeypatch.setattr(places, "_limit", Limit(1, 100))
        monkeypatch.setattr(places, "_key", lambda item: item.kind[0])
        monkeypatch.setattr(places, "_shares", Shares())
        monkeypatch.setattr(places, "_count_room", partial(_full, places))
        monkeypatch.setattr(places, "_room", 0)
        monkeypatch.setattr(places, "_reserve", 0)
        places._shares.came(["plain"] * 100)
        places._count_room()
    monkeypatch.setattr(waiting_line, "random", lambda: 0.5)
    for sku, code in (("plain", 503), ("another", 201), ("remembered", 409)):
        assert codes(two.agree(place(sku)).answers) == [code], sku
    broken = place("other").replace(b'"buyer"', b'"bayer"')
    assert codes(two.agree(broken).answers) == [422]

    async def at_once(server: Server) -> list[list[int]]:
        lines = [server.connect() for _ in range(3)]
        for number, line in enumerate(lines):
            line.feed(place("another", f"key-{number}"))
        await asyncio.sleep(0.01)  # refusals are told by a timer
        await two.loop.rest()
        answers = [codes(read_answers(bytes(line.sent))) for line in lines]
        for line in lines:
            line.lose()
        await two.loop.rest()
        return answers

    assert two.run(at_once(two.fast)) == [[201], [503], [503]], "one more may come in a turn"
    for server in (two.fast, two.plain):
        places = server.orders.places
        assert places._shares.under_way == {"plain": 100}, "what was answered is under way no more"
        places._reserve = 0
    for sku, code in (("another", 503), ("remembered", 409)):
        assert codes(two.agree(place(sku)).answers) == [code], sku


def _full(places: Batches[Any, Any]) -> None:
    """Have no room, as behind 100 orders that are never answered."""
    places._room, places._reserve = 0, 1


class Fragile:
    """A gateway with a fault of its own."""

    name = "fragile"
    headers: tuple[str, ...] = ()

    def read_callback(self, body: bytes, headers: Mapping[str, str], now_s: int) -> Report:
        raise ZeroDivisionError

    async def ask(self, order_id: bytes) -> Report | None:
        return None

    async def close(self) -> None:
        return


def test_a_fault_in_a_gateway_is_an_answer_in_both_lanes() -> None:
    """Stops: an error that leaves the lane on the connection's own call, which then ends without a word."""
    two = Two(more_gateways=[Fragile()])
    asked = request("POST /v1/payments/fragile/callback HTTP/1.1", [HOST], b"{}")
    assert codes(two.agree(asked, place()).answers) == [500, 201]


def test_a_product_whose_look_up_just_failed_is_answered_the_same(two: Two) -> None:
    """Stops: a failure that is done but not yet forgotten, thrown at the connection that asks in that moment."""

    async def story(server: Server) -> tuple[Answer, ...]:
        failing = asyncio.create_task(server.catalog.product("broken"))
        await asyncio.wait([failing])
        server.browsing._kept["plain"] = (two.loop.time(), failing)
        line = server.connect()
        line.feed(product())
        await two.loop.rest()
        line.lose()
        return read_answers(bytes(line.sent))

    assert codes(two.both(story)) == [500]


def test_a_cancelled_order_whose_look_fails_is_told_as_unknown(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops: *nothing was changed* about an order that was cancelled, because the store died before the second look."""

    async def story(server: Server) -> tuple[Answer, ...]:
        async def gone(_order_id: bytes) -> None:
            raise StoreUnavailable

        monkeypatch.setattr(server.tracking, "look", gone)
        line = server.connect()
        line.feed(cancel())
        await two.loop.rest()
        line.lose()
        return read_answers(bytes(line.sent))

    (answer,) = two.both(story)
    assert (answer.status, dict(answer.headers)["x-outcome"]) == ("HTTP/1.1 503 Service Unavailable", "unknown")


def test_a_crowd_in_one_turn_gets_each_its_own_answer(two: Two) -> None:
    """Stops: answers that change hands, because the lane has one reader for all connections."""
    said = [place(key=f"key-{n}") for n in range(40)] + [callback(f"paid-{n}") for n in range(40)]
    said += [status(fate) for fate in (0, 1, 2, 3, 4, 5, 6, 7, 20)] + [cancel(), product(), place("sold_out")]

    async def story(server: Server) -> list[tuple[Answer, ...]]:
        lines = [server.connect() for _ in said]
        for line, one in zip(lines, said, strict=True):
            line.feed(one)
        await two.loop.rest()
        for line in lines:
            line.lose()
        await two.loop.rest()
        return [read_answers(bytes(line.sent)) for line in lines]

    heard = two.both(story)
    assert all(len(answers) == 1 for answers in heard)
    assert len({answers[0].body for answers in heard[:40]}) == 40


@pytest.mark.parametrize("kind", ["place", "callback"])
def test_the_longest_body_is_taken_and_a_longer_one_is_not(two: Two, kind: str) -> None:
    """Stops: a limit that one lane draws a byte further than the other."""
    for more in (-1, 0, 1, 2):
        if kind == "place":
            body = order_body().ljust(BODY_MOST + more)
            said = request("POST /v1/orders HTTP/1.1", [HOST, ("Idempotency-Key", "long")], body)
        else:
            body = payment_body().ljust(BODY_MOST + more)
            said = request("POST /v1/payments/sandbox/callback HTTP/1.1", [HOST, signature(body)], body)
        for _ in range(2):  # the second is of a known shape
            heard = two.agree(said, place())
            assert (codes(heard.answers)[0] == 413) == (more > 0)


# --- however it arrives -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "gap"), [*[(kind, "rest") for kind in HOT], ("place", "nothing"), ("status", "nothing")]
)
def test_a_hot_request_cut_at_any_byte_is_answered_the_same(two: Two, kind: str, gap: str) -> None:
    """Stops: half a request taken for a whole one, or a cut that loses or doubles it."""
    said = HOT[kind]
    whole = two.agree(said, fresh=FRESH)
    for at in range(1, len(said)):
        assert two.agree(Piece(said[:at], gap), said[at:], fresh=FRESH) == whole, at


@pytest.mark.parametrize("pair", PAIRS)
def test_two_requests_cut_at_any_byte_are_both_answered_in_turn(two: Two, pair: tuple[str, str]) -> None:
    """Stops: a second request lost, or answered first, because it came with the end of the one before."""
    first, second = HOT[pair[0]], HOT[pair[1]]
    apart = two.agree(Piece(first, 0.6), second, fresh=FRESH)
    said = first + second
    for at in range(len(said)):
        assert two.agree(said[:at], said[at:], fresh=FRESH) == apart, at


@pytest.mark.parametrize("first", HOT)
def test_what_comes_while_an_answer_is_under_way_waits_its_turn(two: Two, first: str) -> None:
    """Stops: a second request that overtakes, or is dropped, while the lane waits for a store."""
    for second in HOT.values():
        middle = len(second) // 2
        for rest in ([second], [second[:middle], second[middle:]], [second + second[:middle], second[middle:]]):
            pieces = [Piece(HOT[first], 0.01), *[Piece(piece, 0.01) for piece in rest]]
            heard = two.agree(*pieces, slow_s=SLOW_S, fresh=FRESH)
            assert len(heard.answers) == 1 + b"".join(rest).count(second)


@pytest.mark.parametrize("first", [*HOT, "cancel"])
def test_a_request_in_the_rest_of_a_head_is_none(two: Two, first: str) -> None:
    """Stops: the rest of a head that began while another request was under way, read as a request of its own."""
    said, begun = HOT.get(first, cancel()), b"POST /v1/orders HTTP/1.1\r\nHost: shop\r\nX-Rest: "
    for gap in (0.01, 0.5):
        for rest in (
            place(key="hidden"),
            b"\r\nHost: shop\r\n" + place(key="hidden"),
            b"\r\n\r\n" + place(key="hidden"),
        ):
            two.agree(Piece(said, 0.01), Piece(begun, gap), Piece(rest, 0.5), place(), slow_s=SLOW_S, fresh=FRESH)


def test_a_second_request_that_arrives_half_under_way_and_half_later_is_whole(two: Two) -> None:
    """Stops: the part held while an answer was under way, given to the lane as if it were all."""
    first, second = HOT["place"], HOT["callback"]
    for at in range(1, len(second)):
        heard = two.agree(Piece(first, 0.01), Piece(second[:at], 0.5), second[at:], slow_s=SLOW_S)
        assert codes(heard.answers) == [201, 200], at
