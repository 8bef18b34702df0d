"""Names that are computed, never looked up: order ids, order tokens and keyed hashes of card keys.

All come from one deployment secret. Order ids and tokens, made for every request, by keyed BLAKE2b (RFC 7693, section
2.9), each under a personalisation of its own: 0.8 µs where HMAC-SHA256 through OpenSSL takes 3.3. Hashes of card keys,
kept for years, by HMAC-SHA256 (RFC 2104) under a label. One never helps to guess another.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import lru_cache

ORDER_ID_BYTES = 16
ORDER_NAME_BYTES = 8  # the first of its id, where one taken for another costs no more than a question
_MAC_BYTES = 16
_TOKEN = re.compile(r"([0-9a-f]{8,10})\.([0-9a-f]{32})")
_ORDER_ID = re.compile(r"[0-9a-f]{32}")  # bytes.fromhex alone would pass over blanks


class Tokens:
    """The tokens of orders that end at one instant: the orders of a batch."""

    __slots__ = ("_begin", "_mac")

    def __init__(self, begin: str, mac: hashlib.blake2b) -> None:
        self._begin, self._mac = begin, mac

    def of(self, order_id: bytes) -> str:
        """Return an order's token."""
        mac = self._mac.copy()
        mac.update(order_id)
        return self._begin + mac.hexdigest()


class Names:
    """Derives every name of one deployment."""

    __slots__ = ("_key_inner", "_key_outer", "_order", "_token")

    def __init__(self, secret: bytes) -> None:
        """Take the deployment's secret (32 bytes or more)."""
        if len(secret) < 32:
            raise ValueError("the deployment secret must have at least 32 bytes")
        key = hashlib.sha256(secret).digest()  # BLAKE2b takes 64 bytes of key at most
        # The key is taken in once; each name begins with a copy of that state.
        self._order = hashlib.blake2b(key=key, person=b"fp-order", digest_size=ORDER_ID_BYTES)
        self._token = hashlib.blake2b(key=key, person=b"fp-token", digest_size=_MAC_BYTES)
        # Likewise both hashes of HMAC (RFC 2104), the inner one with the label; a whole HMAC costs twice as much.
        block = (key if len(secret) > 64 else secret).ljust(64, b"\0")
        self._key_inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + b"card-key\0")
        self._key_outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def order_id(self, buyer: str, idempotency_key: str) -> bytes:
        """Return the 16 bytes that this buyer's idempotency key has always meant and will always mean.

        The buyer's length goes in first, so that no pair of texts can be cut in two ways.
        """
        raw = buyer.encode()
        mac = self._order.copy()
        mac.update(len(raw).to_bytes(2, "big") + raw + idempotency_key.encode())
        return mac.digest()

    def tokens(self, expires_s: int) -> Tokens:
        """Return what makes the tokens of orders that share their end."""
        mac = self._token.copy()
        mac.update(expires_s.to_bytes(8, "big"))
        return Tokens(f"{expires_s:x}.", mac)

    def token(self, order_id: bytes, expires_s: int) -> str:
        """Return the bearer token of an order, valid until ``expires_s`` (seconds since 1970).

        A retry gets the same token, because the same order gives the same ``expires_s``.
        """
        return self.tokens(expires_s).of(order_id)

    def token_expiry(self, token: str, order_id: bytes) -> int | None:
        """Return until when a token is valid (seconds since 1970), or None if it is not this order's."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        expires_s = int(match.group(1), 16)
        return expires_s if hmac.compare_digest(self.token(order_id, expires_s), token) else None

    def key_hash(self, card_key: str) -> bytes:
        """Return the keyed hash (32 bytes) that stands for a card key wherever the key itself must not."""
        inner, outer = self._key_inner.copy(), self._key_outer.copy()
        inner.update(card_key.encode())
        outer.update(inner.digest())
        return outer.digest()


@lru_cache(maxsize=10_000)  # a hot SKU is asked for over and over
def fingerprint(sku: str, quantity: int) -> str:
    """Return what makes two requests under one idempotency key the same: 16 hex digits of sku and quantity."""
    return hashlib.blake2b(f"{quantity}\0{sku}".encode(), digest_size=8).hexdigest()


def split_ids(joined: bytes) -> list[bytes]:
    """Return order ids that stand joined, as in the queue of ends."""
    return [joined[at : at + ORDER_ID_BYTES] for at in range(0, len(joined), ORDER_ID_BYTES)]


def split_names(joined: bytes) -> list[bytes]:
    """Return what stands for orders, joined, among those of their SKU."""
    return [joined[at : at + ORDER_NAME_BYTES] for at in range(0, len(joined), ORDER_NAME_BYTES)]


def parse_order_id(text: str) -> bytes | None:
    """Return the 16 bytes of a 32-digit lower-case hex order id, or None."""
    return bytes.fromhex(text) if _ORDER_ID.fullmatch(text) else None
