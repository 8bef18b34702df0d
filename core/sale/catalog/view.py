"""Products as buyers see them."""

from __future__ import annotations

from typing import Literal

import msgspec


class ProductView(msgspec.Struct, frozen=True):
    """Price in minor units; instants ISO 8601 or null; stock as a word, never a number to race for."""

    sku: str
    title: str
    price: int
    currency: str
    buyer_limit: int
    opens_at: str | None
    closes_at: str | None
    stock: Literal["in", "low", "out"]


class ProductList(msgspec.Struct, frozen=True):
    """A page; ``next`` is the ``after`` of the page that follows, or null."""

    products: list[ProductView]
    next: str | None
