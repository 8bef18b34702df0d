"""The shop's HTTP contract as the load speaks it, without I/O: requests as bytes, judgements of the replies.

The one law of judging: ``ok`` was answered as asked, ``fail`` surely changed nothing, everything else is
``unknown``. A timeout, a reset, an unreadable reply or a 5xx without ``X-Outcome: not-executed`` is unknown.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final

import msgspec

from core.clock import parse_iso8601
from core.ids import parse_order_id
from loadtests.record.history import Result

CALLBACK_PATH: Final = "/v1/payments/sandbox/callback"
_RETRY_AFTER_MOST_S: Final = 86_400.0
OUTCOME_CHARS_MOST: Final = 64
_SHORT_BYTES: Final = 512  # bodies remembered with the word that was read in them

# Why there was no whole reply. The first group surely sent nothing.
REFUSED: Final = "connect_refused"  # no connection could be made
NO_CONNECTION: Final = "no_connection"  # every connection of the pool stayed busy
CUT_EARLY: Final = "cut_early"  # the run ended before the request was sent
TIMEOUT: Final = "timeout"
RESET: Final = "reset"
CLOSED: Final = "closed"  # the peer closed before the reply was whole
MALFORMED: Final = "malformed_reply"
OVERSIZE: Final = "oversize_reply"
CUT_OFF: Final = "cut_off"  # the run ended while the request was under way
NEVER_SENT: Final = frozenset({REFUSED, NO_CONNECTION, CUT_EARLY})


class Reply(msgspec.Struct, gc=False):
    """What came back for one request: a whole reply, or the reason why there is none (``error``).

    Instants are µs since the run's start; ``sent_us`` 0: nothing was sent. Headers are shared: never change them.
    """

    sent_us: int
    done_us: int
    error: str = ""
    status: int = 0
    headers: dict[bytes, bytes] = {}
    body: bytes = b""
    waited_us: int = 0  # before the send: for a free connection, and (added by the buyer) for an earlier answer
    connect_us: int = 0  # before the send, for the opening of a connection
    read_late_us: int | None = None  # how long its end lay in the kernel unread; None: not measured


@lru_cache(maxsize=1_024)  # the orders accepted in one millisecond share their pay_by
def _instant_ms(text: str) -> int:
    return parse_iso8601(text)


class Placed(msgspec.Struct, frozen=True, gc=False):
    """The order a buyer holds, as the shop answered."""

    order_id: str
    token: str
    sku: str
    quantity: int
    amount: int
    currency: str
    pay_by: str
    state: str

    def pay_by_ms(self) -> int:
        """Return until when it can be paid, in milliseconds since 1970."""
        return _instant_ms(self.pay_by)


class Wire:
    """Builds whole requests for one host as bytes."""

    __slots__ = ("_browse", "_callback", "_cancel", "_place", "_track")

    def __init__(self, authority: str) -> None:
        """Take ``host:port``."""
        host = b" HTTP/1.1\r\nHost: " + authority.encode("ascii") + b"\r\n"
        json = b"Content-Type: application/json\r\n"
        self._place = b"POST /v1/orders" + host + json + b"Idempotency-Key: %b\r\nContent-Length: %d\r\n\r\n%b"
        self._browse = b"GET /v1/products%b" + host + b"\r\n"
        self._track = b"GET /v1/orders/%b%b" + host + b"Authorization: Bearer %b\r\n\r\n"
        self._cancel = b"DELETE /v1/orders/%b" + host + b"Authorization: Bearer %b\r\n\r\n"
        self._callback = (
            b"POST " + CALLBACK_PATH.encode() + host + json + b"X-Signature: %b\r\nContent-Length: %d\r\n\r\n%b"
        )

    def browse(self, sku: str) -> bytes:
        """Return the request for a product, or with "" for the first page of all."""
        return self._browse % (b"/" + sku.encode() if sku else b"?limit=20")

    def place(self, idempotency_key: str, sku: str, buyer: str, quantity: int) -> bytes:
        """Return the request that places an order."""
        body = msgspec.json.encode({"sku": sku, "buyer": buyer, "quantity": quantity})
        return self._place % (idempotency_key.encode("ascii"), len(body), body)

    def track(self, order_id: str, token: str, wait_s: int = 0) -> bytes:
        """Return the request for an order's state, waiting up to ``wait_s`` seconds for a change."""
        return self._track % (order_id.encode(), b"?wait=%d" % wait_s if wait_s else b"", token.encode())

    def cancel(self, order_id: str, token: str) -> bytes:
        """Return the request that cancels an order."""
        return self._cancel % (order_id.encode(), token.encode())

    def callback(self, body: bytes, signature: str) -> bytes:
        """Return the gateway's callback."""
        return self._callback % (signature.encode(), len(body), body)


def sign(secret: bytes, body: bytes, unix_s: int) -> str:
    """Return the ``X-Signature`` of a sandbox callback: HMAC-SHA256 (RFC 2104) over ``t.body``."""
    inner, outer = _keyed(secret)
    mac, whole = inner.copy(), outer.copy()
    mac.update(b"%d." % unix_s + body)
    whole.update(mac.digest())
    return f"t={unix_s},v1={whole.hexdigest()}"


@lru_cache(maxsize=16)
def _keyed(secret: bytes) -> tuple[Any, Any]:
    """Return both of HMAC's hashes with the key taken in: half the price of beginning anew for each callback."""
    key = (hashlib.sha256(secret).digest() if len(secret) > 64 else secret).ljust(64, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in key)), hashlib.sha256(bytes(byte ^ 0x5C for byte in key))


def judge(reply: Reply) -> tuple[Result, str]:
    """Return a reply's (result, outcome); the outcome of an ok reply is "" and for the caller to say."""
    if reply.error:
        return ("fail" if reply.error in NEVER_SENT else "unknown"), reply.error
    if 200 <= reply.status < 300:
        return "ok", ""
    told = reply.headers.get(b"x-outcome", b"")
    if told == b"unknown" or not (400 <= reply.status < 500 or (reply.status >= 500 and told == b"not-executed")):
        return "unknown", problem_code(reply)
    return "fail", problem_code(reply)


def problem_code(reply: Reply) -> str:
    """Return the stable code of a problem document (RFC 9457), or ``http_<status>`` where there is none."""
    return _word(reply.body, "code") or f"http_{reply.status}"


def _word(body: bytes, field: str) -> str | None:
    """Return a field of an answer that is one of a few words, or None. The same short body is not read twice."""
    return _short_word(body, field) if len(body) <= _SHORT_BYTES else _read_word(body, field)


def _read_word(body: bytes, field: str) -> str | None:
    fields = decode(body)
    word = fields.get(field) if isinstance(fields, dict) else None
    return word[:OUTCOME_CHARS_MOST] if isinstance(word, str) and word else None


_short_word = lru_cache(maxsize=256)(_read_word)


def read_placed(reply: Reply) -> tuple[Placed, str] | None:
    """Return the order and the hash of its answer, or None if the body is no such answer.

    The hash (blake2b, 8 bytes, hex) goes over all fields except ``state`` in canonical order: a retry must
    get the same, however the order has moved meanwhile.
    """
    fields = decode(reply.body)
    try:
        placed = msgspec.convert(fields, Placed)
        placed.pay_by_ms()
        placed.token.encode("ascii")
    except (msgspec.ValidationError, ValueError):
        return None
    if parse_order_id(placed.order_id) is None:
        return None
    del fields["state"]
    canonical = msgspec.json.encode(fields, order="deterministic")
    return placed, hashlib.blake2b(canonical, digest_size=8).hexdigest()


def read_tracked(reply: Reply) -> tuple[str, list[str]] | None:
    """Return (state, card keys shown), or None if the body is no such answer. The keys must not be kept."""
    fields = decode(reply.body)
    state = fields.get("state") if isinstance(fields, dict) else None
    keys = fields.get("keys") or [] if isinstance(fields, dict) else []
    if not isinstance(state, str) or not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
        return None
    return state[:OUTCOME_CHARS_MOST], keys


def read_callback(reply: Reply) -> str | None:
    """Return what the shop did with a callback (paid, late, refund_due, repeated, noted), or None."""
    return _word(reply.body, "outcome")


def read_stock(reply: Reply) -> str | None:
    """Return the stock word of a product (in, low, out), ``ok`` for a list of products, or None."""
    fields = decode(reply.body)
    if not isinstance(fields, dict):
        return None
    if isinstance(fields.get("products"), list):
        return "ok"
    stock = fields.get("stock")
    return stock[:OUTCOME_CHARS_MOST] if isinstance(stock, str) and stock else None


def retry_after_us(reply: Reply) -> int:
    """Return how long the shop asked to wait, in µs (0: it did not say); bounded."""
    raw = reply.headers.get(b"retry-after", b"")
    return int(min(float(raw), _RETRY_AFTER_MOST_S) * 1_000_000) if raw.isdigit() and len(raw) < 6 else 0


def decode(body: bytes) -> Any:
    """Return the JSON value of a body, or None if it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
