"""Names that are computed, never looked up: order ids, order tokens and keyed hashes of card keys.

All come from one deployment secret by HMAC-SHA256 (RFC 2104), each under its own label, so that one
never helps to guess another.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache

ORDER_ID_BYTES = 16
_MAC_BYTES = 18  # 144 bits, 24 letters of base64
_TOKEN = re.compile(r"([0-9a-f]{8,10})\.([A-Za-z0-9_-]{24})")
_ORDER_ID = re.compile(r"[0-9a-f]{32}")  # bytes.fromhex alone would pass over blanks


class Names:
    """Derives every name of one deployment. Each is one call into C: no hash state is kept or copied."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """Take the deployment's secret (32 bytes or more)."""
        if len(secret) < 32:
            raise ValueError("the deployment secret must have at least 32 bytes")
        self._secret = secret

    def order_id(self, buyer: str, idempotency_key: str) -> bytes:
        """Return the 16 bytes that this buyer's idempotency key has always meant and will always mean.

        The buyer's length goes in first, so that no pair of texts can be cut in two ways.
        """
        raw = buyer.encode()
        said = b"order\0" + len(raw).to_bytes(2, "big") + raw + idempotency_key.encode()
        return hmac.digest(self._secret, said, "sha256")[:ORDER_ID_BYTES]

    def token(self, order_id: bytes, expires_s: int) -> str:
        """Return the bearer token of an order, valid until ``expires_s`` (seconds since 1970).

        A retry gets the same token, because the same order gives the same ``expires_s``.
        """
        return f"{expires_s:x}." + urlsafe_b64encode(self._token_mac(order_id, expires_s)).decode()

    def token_expiry(self, token: str, order_id: bytes) -> int | None:
        """Return until when a token is valid (seconds since 1970), or None if it is not this order's."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        expires_s = int(match.group(1), 16)
        same = hmac.compare_digest(self._token_mac(order_id, expires_s), urlsafe_b64decode(match.group(2)))
        return expires_s if same else None

    def key_hash(self, card_key: str) -> bytes:
        """Return the keyed hash (32 bytes) that stands for a card key wherever the key itself must not."""
        return hmac.digest(self._secret, b"card-key\0" + card_key.encode(), "sha256")

    def _token_mac(self, order_id: bytes, expires_s: int) -> bytes:
        return hmac.digest(self._secret, b"token\0" + expires_s.to_bytes(8, "big") + order_id, "sha256")[:_MAC_BYTES]


@lru_cache(maxsize=10_000)  # a hot SKU is asked for over and over
def fingerprint(sku: str, quantity: int) -> str:
    """Return what makes two requests under one idempotency key the same: 16 hex digits of sku and quantity."""
    return hashlib.blake2b(f"{quantity}\0{sku}".encode(), digest_size=8).hexdigest()


def parse_order_id(text: str) -> bytes | None:
    """Return the 16 bytes of a 32-digit lower-case hex order id, or None."""
    return bytes.fromhex(text) if _ORDER_ID.fullmatch(text) else None
