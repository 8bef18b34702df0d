"""Browse: what is on sale. Answers are kept for a moment, so that a flood of lookers costs one query."""

from __future__ import annotations

from typing import Final, Literal, cast

from core.clock import Clock, iso8601
from core.errors import UnknownProduct
from core.sale.catalog.product import SKU, Product, stock_word
from core.sale.catalog.store import Catalog
from core.sale.catalog.view import ProductList, ProductView

_FRESH_S: Final = 0.25  # how old an answer may be
_KEPT_MOST: Final = 1_000  # answers kept at once


class Browsing:
    """The verb, with its short memory."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog, self._clock = catalog, clock
        self._pages: dict[tuple[str, int], tuple[float, ProductList]] = {}
        self._products: dict[str, tuple[float, ProductView]] = {}

    async def page(self, after: str, limit: int) -> ProductList:
        """Return a page of products behind the SKU ``after``.

        Raises:
            StoreUnavailable, StoreUnknown: a store did not say.
        """
        now = self._clock.monotonic_s()
        kept = self._pages.get((after, limit))
        if kept is not None and now - kept[0] < _FRESH_S:
            return kept[1]
        products = await self._catalog.page(after, limit + 1)
        views = await self._views(products[:limit])
        page = ProductList(products=views, next=products[limit - 1].sku if len(products) > limit else None)
        if len(self._pages) >= _KEPT_MOST:
            self._pages.clear()
        self._pages[after, limit] = (now, page)
        return page

    async def product(self, sku: str) -> ProductView:
        """Return one product.

        Raises:
            UnknownProduct; StoreUnavailable, StoreUnknown: a store did not say.
        """
        if not SKU.fullmatch(sku):
            raise UnknownProduct
        now = self._clock.monotonic_s()
        kept = self._products.get(sku)
        if kept is not None and now - kept[0] < _FRESH_S:
            return kept[1]
        product = await self._catalog.product(sku)
        if product is None:
            raise UnknownProduct
        view = (await self._views([product]))[0]
        if len(self._products) >= _KEPT_MOST:
            self._products.clear()
        self._products[sku] = (now, view)
        return view

    async def _views(self, products: list[Product]) -> list[ProductView]:
        frees = await self._catalog.free([product.sku for product in products]) if products else []
        return [_view(product, free) for product, free in zip(products, frees, strict=True)]


def _view(product: Product, free: int) -> ProductView:
    return ProductView(
        sku=product.sku,
        title=product.title,
        price=product.price,
        currency=product.currency,
        buyer_limit=product.buyer_limit,
        opens_at=iso8601(product.opens_ms) if product.opens_ms else None,
        closes_at=iso8601(product.closes_ms) if product.closes_ms else None,
        stock=cast(Literal["in", "low", "out"], stock_word(free, product.low_stock)),
    )
