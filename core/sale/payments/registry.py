"""The gateways this deployment has set up, by name."""

from __future__ import annotations

from core.sale.payments.gateways.sandbox import Sandbox
from core.sale.payments.port import Gateway
from core.settings import Settings


def gateways(settings: Settings) -> dict[str, Gateway]:
    """Return every gateway that has its secrets in the settings."""
    found: dict[str, Gateway] = {}
    if settings.sandbox_secret:
        found["sandbox"] = Sandbox(settings.sandbox_secret, settings.sandbox_url)
    return found
