"""The port to payment gateways: what one must be able to do, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from core.errors import FlashproofError


class Report(NamedTuple):
    """One thing a gateway says about one order; its signature has been checked. Amount in minor units."""

    gateway: str
    event_id: str
    order_id: bytes
    status: str  # started, failed or paid
    amount: int
    currency: str
    paid_at_ms: int


class GatewaySilent(FlashproofError):
    """The gateway did not answer when asked about a charge."""

    code = "gateway_silent"


class Gateway(Protocol):
    """One payment gateway."""

    name: str
    headers: tuple[str, ...]  # the header fields that ``read_callback`` looks at

    def read_callback(self, body: bytes, headers: Mapping[str, str], now_s: int) -> Report:
        """Return what a callback says.

        Raises:
            SignatureRequired, SignatureInvalid, CallbackStale, MalformedJson, InvalidRequest.
        """

    async def ask(self, order_id: bytes) -> Report | None:
        """Return the charge the gateway has made for an order, or None if it has made none.

        Raises:
            GatewaySilent: it did not say.
        """

    async def close(self) -> None:
        """Let go of connections."""
