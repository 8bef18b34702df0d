"""Whatever a client may send: strategies for requests, right and wrong, and for how their bytes arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from hypothesis import strategies as st
from pure_stores import FATES, FAULTS, PAID, PLACED, an_order_id
from spoken import HOST, NOW_S, Header, bearer, order_body, payment_body, raw, request, signature
from two_lanes import Piece

from core.settings import BODY_MOST, CALLBACK_TOLERANCE_S, IDEMPOTENCY_KEY_CHARS_MOST

Draw = Callable[[st.SearchStrategy[Any]], Any]
Parts = tuple[bytes, list[Header], bytes]  # request line, headers, body

ODD_HEADERS: Final[tuple[Header, ...]] = (
    ("Host", "shop"), ("Host", "other"), ("Host", ""), ("Hosts", "x"), ("X-Host", "Host: other"),
    ("Content-Length", "0"), ("Content-Length", "00"), ("Content-Length", "5"), ("Content-Length", "+1"),
    ("Content-Type", "text/plain"), ("Content-Type", "application/json"), ("User-Agent", "a"), ("User-Agent", ""),
    ("Idempotency-Key", "key-1"), ("Idempotency-Key", "key-2"), ("Idempotency-Key", ""), ("Idempotency-Key", "é"),
    ("Authorization", "Bearer x"), ("Authorization", ""), ("Authorization", b"Bearer \xff"), ("X-Signature", "x"),
    ("X-Signature", ""), ("X-Signature", b"t=1,v1=\xc3\xa9"), ("Expect", "100-continue"), ("Expect", "nothing"),
    ("Expect", ""), ("Upgrade", "websocket"), ("Upgrade", "h2c"), ("Connection", "Upgrade"), ("Connection", "close"),
    ("Connection", "keep-alive"), ("Connection", "Keep-Alive"), ("Connection", "close, keep-alive"), ("Connection", ""),
    ("Connection", "keep-alive, close"), ("Connection", "Host"), ("Keep-Alive", "timeout=1"), ("TE", "trailers"),
    ("Proxy-Connection", "close"), ("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "identity"),
    ("Transfer-Encoding", ""), ("Content-Encoding", "gzip"), ("Content-Encoding", "deflate"), ("Trailer", "X"),
    ("Content-Encoding", "identity"), ("Server", "a"), ("ETag", "a"), ("Content-Location", "/"), ("Max-Forwards", "0"),
    ("Content-Range", "bytes 0-1/2"), ("Sec-WebSocket-Key1", "a"), ("HTTP2-Settings", ""), ("Range", "bytes=0-0"),
    ("If-None-Match", "*"), ("Cookie", "a=b; c"), ("Accept-Encoding", "gzip"), ("X-Forwarded-For", "127.0.0.1"),
    ("X-Word", "é"), ("X-Word", b"\xff\xfe"), ("X-Tabs", "\ta\tb\t"), ("X-Empty", ""), ("X-Control", b"a\x01b"),
    ("X-Delete", b"a\x7fb"), ("X-Nul", b"a\x00b"), ("X-Return", b"a\rb"), ("X-Feed", b"a\nb"), ("X-Folded", b"a\r\n b"),
    ("X Blank", "a"), ("X-Blank ", "a"), (b"X-\xc3\xa9", "a"), (":method", "GET"), ("", "a"), ("X_Under", "a"),
    ("X-Long", "a" * 1_000), ("X-Long", "a" * 4_000), ("X-Long", "a" * 8_180), ("X-Long", "a" * 9_000),
    ("X-" + "a" * 5_000, "a"),
)  # fmt: skip
CASES: Final = (str.lower, str.upper, str.swapcase)
SKUS: Final = (*PLACED, *PLACED, *FAULTS, "mute", "remembered")
NO_SKUS: Final = ("", "a b", "é", "-x", "x" * 64, "x" * 65, "../x", "a?b", "pl%61in", "plain?x", "plain/", "plain#x")
NO_KEYS: Final = ("k" * IDEMPOTENCY_KEY_CHARS_MOST, "k" * (IDEMPOTENCY_KEY_CHARS_MOST + 1), "", "a b", "é", "\tkey\t ")
QUERIES: Final = (
    "?wait=30", "?wait=31", "?wait=30.0000000001", "?wait=-1", "?wait=x", "?wait=", "?wait",
    "?wait=1&wait=2", "?wait=0&a=b", "?a=b", "?wait=%30", "?wait=0#end", "?WAIT=1", "?", "??wait=0", "?wait=?wait=0",
    "?wait=0.0000000001", "?wait=00000", "?wait=+1", "?wait=1_0", "?w%61it=0", "#end", "%20", "/", ";x", "%00",
)  # fmt: skip
OTHER_LINES: Final = (
    "GET /openapi.json", "GET /v1/products", "GET /v1/products?limit=1", "GET /v1/products?limit=0", "GET /", "GET *",
    "GET /v1/products?after=plain", "PUT /v1/orders", "PATCH /v1/orders", "HEAD /v1/products/plain", "OPTIONS *",
    "GET /v1/orders", "GET /v1/orders/", "POST /v1/orders/", "POST /v1/orders?x=y", "POST //v1/orders",
    "POST /v1/../v1/orders", "POST /V1/orders", "POST v1/orders", "post /v1/orders",
    "POST http://shop/v1/orders", "GET a:80", "GET http://other/v1/products/plain", "GET /v1/products/",
    "CONNECT shop:80", "CONNECT /v1/orders", "TRACE /",
    "POST /v1/payments/nobody/callback", "POST /v1/payments/Sandbox/callback", "GET /v1/payments/sandbox/callback",
    "GET /v1/products/pl%61in", "GET /v1/products/plain?x", "GET /v1/products/plain/", "GET /é", "DELETE /v1/orders/0",
)  # fmt: skip
VERSIONS: Final = (
    "HTTP/1.0", "HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.10", "", " HTTP/1.1", "HTTP/1.1 ",
)  # fmt: skip
DAMAGE: Final = (
    b"\r\n", b"\r", b"\n", b" ", b"\t", b"\0", b"\x0b", b"\x7f", b"\x80", b"\xff", b":", b",", b"0", b"9", b"-", b"+",
    b'"', b"%", b"\r\n\r\n", b"Host: x\r\n", b"\r\nX: y\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
)  # fmt: skip


# Where a request may be odd. One is odd in few places, or nothing of it would ever be plain.
WHERE: Final = (
    "headers", "headers", "headers", "body", "body", "damage", "key", "signature", "token", "query", "name", "value",
    "version", "case", "blank", "many", "length",
)  # fmt: skip


def _of(*choices: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(choices)


class _Whims:
    """In which places one request is odd."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self._where = {draw(_of(*WHERE)) for _ in range(draw(_of(0, 0, 1, 1, 2)))}

    def __call__(self, where: str, usual: Any, *odd: Any) -> Any:
        """Return what is usual, or where the request is odd something else."""
        return self.draw(_of(*odd)) if self.at(where) else usual

    def at(self, where: str) -> bool:
        """Say whether the request is odd there."""
        return where in self._where


def _body(odd: _Whims, body: bytes) -> bytes:
    at = odd.draw(st.integers(0, len(body))) if odd.at("body") else 0
    spoilt = (
        b"", b"[]", body[:at], body[:at] + b"\xff" + body[at:], body[:at] + b"\0" + body[at + 1 :],
        body + b" ", body + b" " * BODY_MOST, body + b" " * (BODY_MOST - len(body)), b"\xef\xbb\xbf" + body,
        body[:-1] + b',"more":1}', body[:-1] + b',"sku":"plain"}', body.replace(b"ann", b"\\ud800"),
        *[body.replace(b":1", number) for number in (b":0", b":1.5", b":101", b":true", b':"1"', b":1" + b"0" * 30)],
    )  # fmt: skip
    return bytes(odd("body", body, *spoilt))


def _place(odd: _Whims) -> Parts:
    body = _body(odd, order_body(odd("value", odd.draw(_of(*SKUS)), *NO_SKUS), odd.draw(_of("ann", "ben", "é"))))
    keys = odd("key", ["key-1"], [], ["key-1", "key-1"], ["key-1", "key-2"], *[[key] for key in NO_KEYS])
    return b"POST /v1/orders", [("Content-Type", "application/json"), *[("Idempotency-Key", key) for key in keys]], body


def _callback(odd: _Whims) -> Parts:
    event = odd("value", odd.draw(_of(*PAID, *PAID, *FAULTS, "mute")), "", "é", "e" * 129, "a b") + odd.draw(
        _of("", "-1")
    )
    body = payment_body(event, odd.draw(_of(*FATES)))
    signed = _body(odd, body)
    old, new = -CALLBACK_TOLERANCE_S, CALLBACK_TOLERANCE_S
    name, right = signature(signed, NOW_S + odd("signature", 0, 0, 0, old, old - 1, new, new + 1))
    said = odd(
        "signature", right, right, right[:-1], right + "0", right.upper(), "", "t=1", "é", f"\t{right} ", f"{right},"
    )
    sent = odd("signature", signed, signed, signed + b" ")  # another body than the signed one
    return b"POST /v1/payments/sandbox/callback", [("Content-Type", "application/json"), (name, said)], sent


def _owner(odd: _Whims) -> Parts:
    fate = odd.draw(_of(*FATES))
    name, right = bearer(fate)
    wrong = (
        bearer(fate + 1)[1], bearer(fate, NOW_S - 1)[1], bearer(fate, NOW_S)[1], right[:-1], right + "=", "Bearer ",
        right.upper(), right.lower(), "Basic x", "Bearer", "", right.replace(" ", "  "), right.replace(" ", "\t"), "é",
        right.replace("Bearer", "bearer"), right + " ", right + "\t", right + " x", right + "," + right, "x" * 300,
    )  # fmt: skip
    order = an_order_id(fate).hex()
    order = odd("name", order, order.upper() + "A", order[:-1], order + "0", "", order.replace("0", "%30"), order + "/")
    query = odd("query", odd.draw(_of("", "", "?wait=0", "?wait=0.05", "?wait=1.5")), *QUERIES)
    line = raw(f"{odd.draw(_of('GET', 'GET', 'GET', 'DELETE'))} /v1/orders/{order}{query}")
    return line, [(name, odd("token", right, *wrong))], odd("body", b"", b"{}", b"\r\n")


def _product(odd: _Whims) -> Parts:
    sku = odd("value", odd.draw(_of("plain", "plain", *SKUS)), *NO_SKUS)
    return raw(f"GET /v1/products/{sku}"), [], odd("body", b"", b"{}")


def _other(odd: _Whims) -> Parts:
    return raw(odd.draw(_of(*OTHER_LINES))), [("Idempotency-Key", "key-4")], odd.draw(_of(b"", order_body()))


@st.composite
def requests(draw: Draw) -> bytes:
    """A request, mostly one the shop knows, and odd in few places or in none."""
    odd = _Whims(draw)
    line, headers, body = draw(_of(_place, _place, _callback, _callback, _owner, _owner, _product, _other))(odd)
    headers.insert(0, HOST)
    for header in draw(st.lists(_of(*ODD_HEADERS), min_size=1, max_size=2)) if odd.at("headers") else ():
        headers.insert(draw(st.integers(0, len(headers))), header)
    case = odd("case", str, *CASES)
    headers = [(case(name) if isinstance(name, str) else name, value) for name, value in headers]
    headers += [(f"X-{number}", "a") for number in range(odd("many", 0, 50, 56, 57, 58, 64, 124, 127, 130))]
    version, length = raw(odd("version", "HTTP/1.1", *VERSIONS)), odd("length", None, True, False)
    whole = request(line + b" " + version, headers, body, length=length)
    whole = whole.replace(b": ", odd("blank", b": ", b":", b":\t ", b":  ", b" : ", b"\t: "))
    if odd.at("damage"):
        at = draw(st.integers(0, len(whole)))
        return whole[:at] + draw(_of(*DAMAGE)) + whole[at + draw(_of(0, 0, 1, 3)) :]
    return whole


GAPS: Final = ("nothing", "turn", "rest", "rest", "rest", "wake", 0.03, 0.3)


@st.composite
def conversations(draw: Draw) -> Sequence[Piece]:
    """What one client sends: each request in a write of its own, or all in one, or cut anywhere."""
    said = draw(st.lists(requests(), min_size=1, max_size=4))
    if draw(_of(True, True, False)):
        return [Piece(one, draw(_of(*GAPS))) for one in said]
    whole = b"".join(said)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    return [Piece(whole[a:b], draw(_of(*GAPS))) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
