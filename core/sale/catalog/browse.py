"""Browse: what is on sale. Answers are kept for a moment, so that a flood of lookers costs one query."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal, cast

from core.clock import Clock, iso8601
from core.errors import Overloaded, UnknownProduct
from core.sale.catalog.product import SKU, Product, stock_word
from core.sale.catalog.store import Catalog
from core.sale.catalog.view import ProductList, ProductView

_FRESH_S: Final = 0.25  # how old an answer may be
_KEPT_MOST: Final = 1_000  # answers kept at once


class Browsing:
    """The verb, with its short memory."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog, self._clock = catalog, clock
        self._kept: dict[object, tuple[float, asyncio.Task[Any]]] = {}

    async def page(self, after: str, limit: int) -> ProductList:
        """Return a page of products behind the SKU ``after``.

        Raises:
            StoreUnavailable, StoreUnknown: a store did not say.
        """
        return cast(ProductList, await self._once((after, limit), lambda: self._page(after, limit)))

    async def product(self, sku: str) -> ProductView:
        """Return one product.

        Raises:
            UnknownProduct; StoreUnavailable, StoreUnknown: a store did not say.
        """
        if not SKU.fullmatch(sku):
            raise UnknownProduct
        return cast(ProductView, await self._once(sku, lambda: self._product(sku)))

    def fresh(self, sku: str) -> ProductView | None:
        """Return the product if it was asked about a moment ago, else None: then ``product`` must be asked."""
        kept = self._kept.get(sku)
        if kept is None or self._clock.monotonic_s() - kept[0] >= _FRESH_S or not kept[1].done():
            return None
        return cast(ProductView, kept[1].result())  # a failure is not kept

    async def _once(self, what: object, ask: Callable[[], Coroutine[Any, Any, object]]) -> object:
        """Return the answer that is fresh or being asked for; only where there is none, ask. A failure is not kept."""
        now = self._clock.monotonic_s()
        kept = self._kept.get(what)
        if kept is not None and now - kept[0] < _FRESH_S:
            return await asyncio.shield(kept[1])
        if len(self._kept) >= _KEPT_MOST:
            self._kept = {key: one for key, one in self._kept.items() if now - one[0] < _FRESH_S}
        if len(self._kept) >= _KEPT_MOST:
            raise Overloaded
        task = asyncio.create_task(ask())
        task.add_done_callback(lambda done: self._forget_failure(what, done))
        self._kept[what] = (now, task)
        return await asyncio.shield(task)

    def _forget_failure(self, what: object, done: asyncio.Task[Any]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._kept.pop(what, None)

    async def _page(self, after: str, limit: int) -> ProductList:
        products = await self._catalog.page(after, limit + 1)
        views = await self._views(products[:limit])
        return ProductList(products=views, next=products[limit - 1].sku if len(products) > limit else None)

    async def _product(self, sku: str) -> ProductView:
        product = await self._catalog.product(sku)
        if product is None:
            raise UnknownProduct
        return (await self._views([product]))[0]

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
