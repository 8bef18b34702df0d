"""The sandbox gateway: signed callbacks like a real one's, for tests, rehearsals and load.

A callback is JSON with ``X-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">``. Order, amount and currency
are inside the signed body, so a callback cannot be moved to another order or made cheaper.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final, Literal

import aiohttp
import msgspec

from core.clock import parse_iso8601
from core.errors import CallbackStale, InvalidRequest, MalformedJson, SignatureInvalid, SignatureRequired
from core.ids import parse_order_id
from core.money import AMOUNT_MOST
from core.sale.body import repeated_field
from core.sale.payments.port import GatewaySilent, Report
from core.settings import CALLBACK_TOLERANCE_S, EVENT_ID_CHARS_MOST

NAME: Final = "sandbox"
_SIGNATURE: Final = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")
_EVENT: Final = re.compile(rf"[\x21-\x7e]{{1,{EVENT_ID_CHARS_MOST}}}")
_QUOTES: Final = 22  # around six names and five texts
_ASK_TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0)
_ANSWER_BYTES_MOST: Final = 4_096


class Callback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The signed body. ``status`` started and failed tell of an attempt to pay; only paid means money."""

    event_id: str
    order_id: str
    amount: int
    currency: str
    status: Literal["started", "failed", "paid"]
    paid_at: str


_decode = msgspec.json.Decoder(Callback).decode


def sign(secret: bytes, body: bytes, at_s: int) -> str:
    """Return the X-Signature of a body signed at ``at_s`` (seconds since 1970)."""
    return f"t={at_s},v1=" + hmac.new(secret, b"%d." % at_s + body, hashlib.sha256).hexdigest()


class Sandbox:
    """The gateway named ``sandbox``."""

    name = NAME
    headers: tuple[str, ...] = ("X-Signature",)

    def __init__(self, secret: bytes, url: str = "") -> None:
        """``url``: where a charge can be asked about (``GET <url>/charges/<order id>``); empty: it charged nothing."""
        self._secret, self._url = secret, url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    def read_callback(self, body: bytes, headers: Mapping[str, str], now_s: int) -> Report:
        """Return what a callback says; the signature is checked before a byte of the body is read."""
        match = _SIGNATURE.fullmatch(headers.get("X-Signature", ""))
        if match is None:
            raise SignatureRequired
        at_s = int(match.group(1))
        if not hmac.compare_digest(sign(self._secret, body, at_s), match.group(0)):
            raise SignatureInvalid
        if abs(now_s - at_s) > CALLBACK_TOLERANCE_S:
            raise CallbackStale
        return self._read(body)

    def _read(self, body: bytes) -> Report:
        try:
            said = _decode(body)
            paid_at_ms = parse_iso8601(said.paid_at)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"{error}.") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedJson(f"The body is not JSON: {error}.") from error
        except (ValueError, OverflowError) as error:
            raise InvalidRequest(f"paid_at: {error}.") from error
        order_id = parse_order_id(said.order_id)
        if order_id is None:
            raise InvalidRequest("order_id must be 32 lower-case hex digits.")
        if not _EVENT.fullmatch(said.event_id):
            raise InvalidRequest(f"event_id must be 1 to {EVENT_ID_CHARS_MOST} visible ASCII characters.")
        if not 0 <= said.amount <= AMOUNT_MOST:
            raise InvalidRequest("amount must be a whole number of minor units, not negative.")
        twice = repeated_field(body, _QUOTES)
        if twice is not None:
            raise InvalidRequest(f"{twice} stands twice.")
        return Report(NAME, said.event_id, order_id, said.status, said.amount, said.currency, paid_at_ms)

    async def ask(self, order_id: bytes) -> Report | None:
        """Return the charge the gateway has made for an order, or None."""
        if not self._url:
            return None
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_ASK_TIMEOUT)
        try:
            async with self._session.get(f"{self._url}/charges/{order_id.hex()}") as answer:
                if answer.status == 404:
                    return None
                if answer.status != 200:
                    raise GatewaySilent(f"the sandbox answered {answer.status}")
                report = self._read(await answer.content.read(_ANSWER_BYTES_MOST))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise GatewaySilent(f"the sandbox did not answer: {type(error).__name__}") from error
        except (InvalidRequest, MalformedJson) as error:
            raise GatewaySilent(f"the sandbox spoke nonsense: {error}") from error
        return report if report.status == "paid" and report.order_id == order_id else None

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()
