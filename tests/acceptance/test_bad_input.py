"""Whatever comes in: a problem document with its own code, never a 500, and nothing changed in either store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from core.ids import parse_order_id
from core.local.server import wait_until
from core.sale.payments.gateways.sandbox import sign
from core.settings import BODY_MOST, CALLBACK_TOLERANCE_S

if TYPE_CHECKING:
    from conftest import Answer, Shop

POST = b"POST /v1/orders HTTP/1.1\r\nHost: shop\r\nIdempotency-Key: raw-1\r\n"
GET = b"GET /v1/products/plain HTTP/1.1\r\nHost: shop\r\n"
KEY = {"Idempotency-Key": "bad-input-1"}
EVERYTHING_FITS = b'{"sku":"plain","buyer":"x","quantity":1}'


class Orders(NamedTuple):
    """What was sold before the bad input came."""

    unpaid: dict[str, Any]
    other: dict[str, Any]
    delivered: dict[str, Any]
    event: bytes  # the callback that paid `delivered`


@pytest.fixture(scope="module")
def orders(shop: Shop) -> Orders:
    """An unpaid order, another one, a delivered one; `single` is sold out and `regular` has both units of `two`."""
    shop.placed("single")
    shop.placed("two", buyer="regular", quantity=2)
    delivered = shop.placed("plain")
    event = shop.payment(delivered)
    assert shop.callback(event).json == {"outcome": "paid", "state": "paid"}
    shop.delivered(delivered)
    return Orders(shop.placed("plain"), shop.placed("plain"), delivered, event)


@pytest.fixture(autouse=True)
def nothing_changes(shop: Shop, orders: Orders) -> Iterator[None]:
    """Every key of Valkey and every row of PostgreSQL is after each test what it was before."""
    shop.books.settled()
    before = shop.books.snapshot()
    yield
    after = shop.books.snapshot()
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == set()


def body(**changed: str) -> bytes:
    """Return an order's body with some fields' JSON text changed, added, or left out (empty)."""
    fields = {"sku": '"plain"', "buyer": '"x"', "quantity": "1"} | changed
    return ("{" + ",".join(f'"{name}":{text}' for name, text in fields.items() if text) + "}").encode()


NOT_JSON = {
    "nothing": b"",
    "half": EVERYTHING_FITS[:-1],
    "more behind": EVERYTHING_FITS + b"}",
    "single quotes": b"{'sku':'plain'}",
    "other bytes": b"\xff\xfe\x00",
    "a byte order mark": b"\xef\xbb\xbf" + EVERYTHING_FITS,
    "a raw NUL": body(sku='"pl\x00ain"'),
    "a lone surrogate": body(buyer='"\\ud800"'),
    "a raw surrogate": EVERYTHING_FITS.replace(b"x", b"\xed\xa0\x80"),
    "a leading zero": body(quantity="01"),
    "not a number": body(quantity="NaN"),
}
UNFIT = {
    "an array": b"[]",
    "null": b"null",
    "deep nesting": b"[" * 4_000,
    "deep nesting in a field": body(sku="[" * 3_900),
    "an unknown field": body(price="1"),
    "an unknown deep field": body(price='{"a":' * 600),
    "another case": body(sku="", SKU='"plain"'),
    "no sku": body(sku=""),
    "a number as sku": body(sku="1"),
    "a slash in the sku": body(sku='"a/b"'),
    "a long sku": body(sku=f'"{"s" * 65}"'),
    "an escaped NUL in the sku": body(sku='"plain\\u0000"'),
    "a line's end behind the sku": body(sku='"plain\\n"'),
    "no buyer": body(buyer=""),
    "an empty buyer": body(buyer='""'),
    "null as buyer": body(buyer="null"),
    "a long buyer": body(buyer=f'"{"b" * 129}"'),
    "an escaped NUL in the buyer": body(buyer='"a\\u0000"'),
    "no quantity": body(quantity=""),
    "the sku twice": EVERYTHING_FITS[:-1] + b',"sku":"two"}',
    "the quantity twice": b'{"quantity":2,' + EVERYTHING_FITS[1:],
    "a field twice under an escape": EVERYTHING_FITS[:-1] + b',"\\u0073ku":"two"}',
}
QUANTITIES = ["0", "-0", "-1", "101", "1e2", "1E0", "1.0", "1.5", '"1"', "true", "null", "[1]", "{}"]
QUANTITIES += ["9223372036854775808", "1" + "0" * 30, "1e400"]


@pytest.mark.parametrize("sent", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_refused(shop: Shop, sent: bytes) -> None:
    """Stops: a parser that guesses, and a crash on bytes no text has."""
    shop.ask("POST", "/v1/orders", sent, KEY).refused(400, "malformed_json")


@pytest.mark.parametrize("sent", UNFIT.values(), ids=UNFIT)
def test_json_of_the_wrong_shape_is_refused(shop: Shop, sent: bytes) -> None:
    """Stops: fields ignored in silence, and a body that two readers understand in two ways."""
    shop.ask("POST", "/v1/orders", sent, KEY).refused(422, "invalid_request")


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_quantity_is_plain_digits_within_bounds(shop: Shop, quantity: str) -> None:
    """Stops: 1e2 units by a float, one unit by `true`, a stock raised by a negative order."""
    shop.ask("POST", "/v1/orders", body(quantity=quantity), KEY).refused(422, "invalid_quantity")


@pytest.mark.parametrize(
    "values", [[""], [" "], ["k" * 129], ["a", "a"], ["a", "b"], ["a b"], ["schlüssel"], ["a\tb"]], ids=repr
)
def test_an_idempotency_key_is_visible_ascii_sent_once(shop: Shop, values: list[str]) -> None:
    """Stops: two orders for one purchase because two proxies read the key differently."""
    headers = [("Idempotency-Key", value) for value in values]
    shop.ask("POST", "/v1/orders", EVERYTHING_FITS, headers).refused(400, "idempotency_key_invalid")


def test_an_order_without_idempotency_key_is_refused(shop: Shop) -> None:
    """Stops: an order that no retry could ever find again."""
    shop.ask("POST", "/v1/orders", EVERYTHING_FITS).refused(400, "idempotency_key_required")


@pytest.mark.parametrize("path", ["/v1/orders", "/v1/payments/sandbox/callback"])
def test_a_body_too_large_is_refused_however_it_is_sent(shop: Shop, path: str) -> None:
    """Stops: memory filled by bodies, announced or not."""
    shop.ask("POST", path, b" " * (BODY_MOST + 1), KEY).refused(413, "body_too_large")
    head = b"POST %s HTTP/1.1\r\nHost: shop\r\nIdempotency-Key: raw\r\n" % path.encode()
    shop.raw(head + b"Content-Length: 1000000000000\r\n\r\n").refused(413, "body_too_large")
    chunk = b"%x\r\n%s\r\n" % (BODY_MOST + 1, b" " * (BODY_MOST + 1))
    shop.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n").refused(413, "body_too_large")


def test_a_body_that_never_ends_is_cut_off(shop: Shop) -> None:
    """Stops: connections held for ever by one byte a minute; aiohttp sets no limit of its own."""
    began = time.monotonic()
    slow = [b"Content-Length: 50\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
    with ThreadPoolExecutor(len(slow)) as pool:
        for answer in pool.map(lambda rest: shop.raw(POST + rest), slow):
            answer.refused(408, "body_timeout")
    assert 4.5 < time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"sku": '"nothing-like-it"'}, 404, "unknown_product"),
        ({"sku": '"over"'}, 403, "sale_closed"),
        ({"sku": '"later"'}, 403, "sale_not_open"),
        ({"sku": '"two"', "quantity": "3"}, 409, "limit_reached"),
        ({"sku": '"two"', "buyer": '"regular"'}, 409, "limit_reached"),
        ({"sku": '"single"'}, 409, "sold_out"),
    ],
    ids=str,
)
def test_a_refused_sale_says_why_and_changes_nothing(
    shop: Shop, changed: dict[str, str], status: int, code: str
) -> None:
    """Stops: stock or a buyer's quota used up by an order that was never accepted."""
    shop.ask("POST", "/v1/orders", body(**changed), KEY).refused(status, code)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_foreign_order_looks_exactly_like_an_unknown_one(shop: Shop, orders: Orders, method: str) -> None:
    """Stops: order ids confirmed to a stranger by any difference between two answers."""
    mine, foreign = orders.unpaid, orders.other["order_id"]
    tokens = [mine["token"], orders.delivered["token"], "ffffffff." + "A" * 24, "nonsense", "schlüssel"]
    ids = ["0" * 32, foreign.upper(), foreign[:31], foreign[:30] + "%20%20", "%00", "z" * 32]
    seen: list[Answer] = [
        shop.ask(method, f"/v1/orders/{order_id}", None, {"Authorization": f"Bearer {token}"})
        for order_id, token in [(foreign, token) for token in tokens] + [(one, mine["token"]) for one in ids]
    ]
    for answer in seen:
        answer.refused(404, "unknown_order")
    assert len({answer.body for answer in seen}) == 1
    assert len({tuple(answer.headers) for answer in seen}) == 1


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic eDp5", "Bearer " + "t" * 200], ids=repr)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_order_is_not_shown_without_a_token(shop: Shop, orders: Orders, method: str, header: str | None) -> None:
    """Stops: card keys for whoever knows the order's id."""
    headers = {} if header is None else {"Authorization": header}
    answer = shop.ask(method, f"/v1/orders/{orders.delivered['order_id']}", None, headers)
    assert answer.refused(401, "token_required").headers["www-authenticate"] == "Bearer"


def test_an_expired_token_opens_nothing(shop: Shop, orders: Orders) -> None:
    """Stops: a link from an old mail that shows the keys for ever."""
    order_id = parse_order_id(orders.delivered["order_id"])
    assert order_id is not None
    expired = {**orders.delivered, "token": shop.names.token(order_id, int(time.time()) - 1)}
    shop.track(expired).refused(401, "token_expired")
    shop.cancel(expired).refused(401, "token_expired")


@pytest.mark.parametrize("wait", ["abc", "-1", "31", "nan", "inf", "1e999", "", "1_0", "%D9%A3", "%201", "0x1"])
def test_wait_is_a_number_of_seconds_within_bounds(shop: Shop, orders: Orders, wait: str) -> None:
    """Stops: a poll that never ends (nan compares false to every limit), and numbers only Python would read."""
    shop.track(orders.unpaid, wait).refused(422, "invalid_wait")


@pytest.mark.parametrize(
    "query",
    [f"limit={text}" for text in ("abc", "0", "501", "-1", "1_0", "%D9%A1", "", "00000199999", "000001" + "0" * 5_000)]
    + [f"after={text}" for text in ("%00", "a%2Fb", "%FF", "a" * 65)],
    ids=lambda query: str(query)[:20],
)
def test_a_page_is_asked_for_within_bounds(shop: Shop, query: str) -> None:
    """Stops: a page of 199,999 products behind leading zeros, and a NUL that PostgreSQL cannot take as a 500."""
    shop.ask("GET", f"/v1/products?{query}").refused(422, "invalid_page")


@pytest.mark.parametrize("sku", ["%00", "a%2Fb", "%FF", "plain%0A", "s" * 65, "nothing-like-it"])
def test_a_sku_that_cannot_be_is_an_unknown_product(shop: Shop, sku: str) -> None:
    """Stops: bytes from the address in a query."""
    shop.ask("GET", f"/v1/products/{sku}").refused(404, "unknown_product")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/orders/", 404, "not_found"),
        ("GET", "/metrics", 404, "not_found"),
        ("GET", "/healthz", 404, "not_found"),
        ("PUT", "/v1/orders", 405, "method_not_allowed"),
        ("GET", "/v1/orders", 405, "method_not_allowed"),
        ("POST", "/v1/products", 405, "method_not_allowed"),
    ],
)
def test_an_unknown_address_is_a_problem_too(shop: Shop, method: str, path: str, status: int, code: str) -> None:
    """Stops: an HTML page where a program expects JSON; the operators' pages on the buyers' port."""
    answer = shop.ask(method, path).refused(status, code)
    assert ("allow" in answer.headers) == (status == 405)


CALLBACK_FIELDS: list[dict[str, object]] = [
    {"amount": -1},
    {"amount": 1999.0},
    {"amount": "1999"},
    {"amount": True},
    {"amount": None},
    {"amount": 10**30},
    {"currency": None},
    {"status": "maybe"},
    {"merchant": "us"},
    {"order_id": ""},
    {"order_id": "z" * 32},
    {"order_id": "A" * 32},
    {"order_id": "ab" * 15 + "  "},
    {"event_id": ""},
    {"event_id": "a b"},
    {"event_id": "a\0"},
    {"event_id": "é"},
    {"event_id": "e" * 129},
    {"paid_at": "yesterday"},
    {"paid_at": "2026-01-01T00:00:00"},
    {"paid_at": "10000-01-01T00:00:00Z"},
    {"paid_at": 5},
]


@pytest.mark.parametrize("changed", CALLBACK_FIELDS, ids=str)
def test_a_signed_callback_of_the_wrong_shape_is_refused(
    shop: Shop, orders: Orders, changed: dict[str, object]
) -> None:
    """Stops: cents by float, and an id of 15 bytes that shifts every other id of its batch."""
    shop.pay(orders.unpaid, **changed).refused(422, "invalid_request")


def test_a_signed_callback_that_says_something_twice_is_refused(shop: Shop, orders: Orders) -> None:
    """Stops: two amounts under one signature, one for the gateway's log and one for us."""
    said = shop.payment(orders.unpaid)
    shop.callback(said[:-1] + b',"amount":1999}').refused(422, "invalid_request")
    shop.callback(said[:-1]).refused(400, "malformed_json")


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"amount": 1998}, 422, "amount_mismatch"),
        ({"amount": 0}, 422, "amount_mismatch"),
        ({"currency": "USD"}, 422, "currency_mismatch"),
        ({"currency": "CN\0"}, 422, "currency_mismatch"),
        ({"order_id": "0" * 32}, 404, "unknown_order"),
        ({"amount": 1, "status": "started"}, 422, "amount_mismatch"),
    ],
    ids=str,
)
def test_a_charge_must_be_the_orders_own(
    shop: Shop, orders: Orders, changed: dict[str, object], status: int, code: str
) -> None:
    """Stops: a card key for a cent, or for as many units of a cheaper currency."""
    shop.pay(orders.unpaid, **changed).refused(status, code)


def test_a_forged_moved_or_old_callback_is_refused(shop: Shop, orders: Orders) -> None:
    """Stops: keys for whoever can send HTTP, or has once seen a callback."""
    said, now = shop.payment(orders.unpaid), int(time.time())
    shop.callback(said, sign(b"another secret 123", said, now)).refused(401, "signature_invalid")
    shop.callback(said, shop.signature(orders.event)).refused(401, "signature_invalid")
    moved = orders.event.replace(orders.delivered["order_id"].encode(), orders.unpaid["order_id"].encode())
    shop.callback(moved, shop.signature(orders.event)).refused(401, "signature_invalid")
    good = shop.signature(said)
    shop.callback(said, good.replace(f"t={now}", f"t={now - 1}")).refused(401, "signature_invalid")
    for at_s in (now - CALLBACK_TOLERANCE_S - 2, now + CALLBACK_TOLERANCE_S + 5, 0, 999_999_999_999):
        shop.callback(said, shop.signature(said, at_s)).refused(401, "callback_stale")


@pytest.mark.parametrize("odd", ["", "t=1", "v1=", "t=1,v1=" + "0" * 63, "t=-1,v1=" + "0" * 64, "t=²,v1=" + "0" * 64])
def test_a_callback_without_a_whole_signature_is_refused(shop: Shop, orders: Orders, odd: str) -> None:
    """Stops: a missing signature taken for a fitting one."""
    said = shop.payment(orders.unpaid)
    path, good = "/v1/payments/sandbox/callback", shop.signature(said)
    for headers in ({"X-Signature": odd}, {}, {"X-Signature": good.upper()}, {"X-Signature": good + ",v2=0"}):
        shop.ask("POST", path, said, headers).refused(401, "signature_required")


def test_an_event_pays_one_order_only(shop: Shop, orders: Orders) -> None:
    """Stops: one charge, signed well, delivering two orders."""
    reused = shop.payment(orders.unpaid, event_id=f"event-{orders.delivered['order_id']}")
    shop.callback(reused).refused(409, "event_reused")


def test_a_callback_replayed_within_its_time_changes_nothing(shop: Shop, orders: Orders) -> None:
    """Stops: a repeated notification that delivers again or books a second charge."""
    for _ in range(2):
        assert shop.callback(orders.event).json == {"outcome": "repeated", "state": "delivered"}


@pytest.mark.parametrize("gateway", ["nothing-like-it", "Sandbox", "%00"])
def test_an_unknown_gateway_is_refused(shop: Shop, orders: Orders, gateway: str) -> None:
    """Stops: a callback believed under a name nobody set up."""
    shop.callback(orders.event, gateway=gateway).refused(404, "unknown_gateway")


CHUNKED = b"Transfer-Encoding: chunked\r\n"
NOT_HTTP = {
    "nonsense": b"GARBAGE\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40,
    "HTTP/9.9": b"GET / HTTP/9.9\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"FOO /v1/orders HTTP/1.1\r\nHost: shop\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "no colon": GET + b"nocolon\r\n\r\n",
    "a space in a name": GET + b"a b: c\r\n\r\n",
    "a folded header": GET + b"A: b\r\n c\r\n\r\n",
    "a NUL in a header": GET + b"A: b\0c\r\n\r\n",
    "a broken address": b"GET http://[::1 HTTP/1.1\r\nHost: shop\r\n\r\n",
    "a relative address": b"GET v1/products HTTP/1.1\r\nHost: shop\r\n\r\n",
    "a header of 100 kB": GET + b"A: " + b"x" * 100_000 + b"\r\n\r\n",
    "an address of 100 kB": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: shop\r\n\r\n",
    "200 headers": GET + b"A: b\r\n" * 200 + b"\r\n",
    "length and chunks": POST + b"Content-Length: 6\r\n" + CHUNKED + b"\r\n0\r\n\r\nG",
    "chunks and length": POST + CHUNKED + b"Content-Length: 6\r\n\r\n0\r\n\r\nG",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
    "a signed length": POST + b"Content-Length: +5\r\n\r\n12345",
    "a negative length": POST + b"Content-Length: -5\r\n\r\n",
    "a length beyond numbers": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": POST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a chunk of no size": POST + CHUNKED + b"\r\nZZZ\r\n\r\n",
    "a chunk of another size": POST + CHUNKED + b"\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
    "a chunk beyond numbers": POST + CHUNKED + b"\r\nfffffffffffffffffff\r\nab\r\n0\r\n\r\n",
    "a broken later chunk": POST + CHUNKED + b"\r\n2\r\n{}\r\nZZ\r\n",
    "what is not gzip": POST + b"Content-Encoding: gzip\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde",
    "what is not deflate": POST + b"Content-Encoding: deflate\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde",
    "an expectation": POST + b"Expect: the impossible\r\nContent-Length: 2\r\n\r\n{}",
    "an expectation of nothing": b"GET /nothing HTTP/1.1\r\nHost: shop\r\nExpect: it\r\n\r\n",
}


@pytest.mark.parametrize("sent", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http_is_refused_in_the_shops_own_words(shop: Shop, sent: bytes) -> None:
    """Stops: a text page or a 500 from the library below, and a request smuggled behind another one."""
    shop.raw(sent, ends=True).refused(400, "malformed_request")


def test_bad_input_leaves_no_trace_but_counters(shop: Shop) -> None:
    """Stops: a log that strangers fill with traces of their own bytes, tokens among them; a worker that died."""
    text = (shop.deployment.directory / "logs" / "serve.log").read_text()
    for word in ("Traceback", "request_failed", "worker_died", "connection_failed", "Error handling", "xxxx"):
        assert word not in text
    counter = b'flashproof_refusals_total{code="malformed_request"}'
    assert wait_until(lambda: counter in shop.operator("/metrics").body, 5)
