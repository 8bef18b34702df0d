"""A product: what is sold, at which price, when, and how much of it one buyer may have."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from core.errors import BadInput
from core.money import AMOUNT_MOST, minor_digits
from core.settings import QUANTITY_MOST

SKU: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOLD_MS: Final = range(1_000, 24 * 3_600_000 + 1)
_TITLE_CHARS_MOST: Final = 200
_TITLE: Final = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{_TITLE_CHARS_MOST}}}")


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """Price in minor units; instants in ms since 1970, 0 for no bound."""

    sku: str
    title: str
    price: int
    currency: str
    buyer_limit: int
    hold_ms: int  # how long an unpaid order keeps its units
    opens_ms: int = 0
    closes_ms: int = 0
    low_stock: int = 0  # at or below it, buyers see `low`

    def check(self) -> Product:
        """Return the product if the shop can sell it.

        Raises:
            BadInput: the message names the field and its bounds.
        """
        if not SKU.fullmatch(self.sku):
            raise BadInput("the SKU must be 1 to 64 letters, digits, dots, dashes or underscores")
        if not _TITLE.fullmatch(self.title):
            raise BadInput(f"the title must have 1 to {_TITLE_CHARS_MOST} characters in UTF-8, none of them a control")
        try:
            minor_digits(self.currency)
        except ValueError as error:
            raise BadInput(str(error)) from error
        if not 1 <= self.buyer_limit <= 1_000_000:
            raise BadInput("the limit per buyer must be from 1 to 1,000,000 units")
        if not 0 <= self.price * min(self.buyer_limit, QUANTITY_MOST) <= AMOUNT_MOST:
            raise BadInput("the price is negative or too high")
        if self.hold_ms not in _HOLD_MS:
            raise BadInput("the hold must be from 1 second to 24 hours")
        if self.closes_ms and self.closes_ms <= self.opens_ms:
            raise BadInput("the sale would close before it opens")
        if not 0 <= self.low_stock <= 1_000_000:
            raise BadInput("the low-stock line must be from 0 to 1,000,000")
        return self


def stock_word(free: int, low_stock: int) -> str:
    """Return how buyers see a stock: ``out``, ``low`` or ``in``."""
    if free <= 0:
        return "out"
    return "low" if free <= low_stock else "in"
