"""Stores without a network, behind real batches: each answer is a pure function of what is asked.

An order's fate stands in its SKU, a payment's in its event (up to the first dash), a status in the order's first byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from core.backends.batches import Batches
from core.errors import Fenced, Refusal, SoldOut, StoreUnavailable, StoreUnknown
from core.ids import Names
from core.sale.catalog.product import Product
from core.sale.delivery.vault import VaultLocked
from core.sale.orders.answers import CancelAnswer, PayAnswer, PlaceAnswer, TrackAnswer
from core.sale.orders.pay import REFUSED
from core.sale.orders.record import OrderRecord, Records
from core.sale.orders.store import CancelItem, PayItem, PlaceItem
from core.telemetry import Secret

Item = TypeVar("Item")
Told = TypeVar("Told")
CLOCK_MS: Final = 1_800_000_000_000
NAMES: Final = Names(bytes(range(32)))
SECRET: Final = b"the sandbox's own secret"
PAY_BY_MS: Final = CLOCK_MS + 900_000
PRICE: Final = 1999
# What goes wrong with a whole call, by the word that stands for it.
FAULTS: Final[dict[str, Exception]] = {
    "unknown": StoreUnknown(),
    "silent": StoreUnknown("The store's answer never came."),
    "gone": StoreUnavailable("Valkey cannot be reached: ConnectionError"),
    "fenced": Fenced(),
    "broken": RuntimeError("a fault of ours"),
}
PLACED: Final = ("plain", "replayed", "conflict", "not_open", "closed", "limit_reached", "sold_out", "unknown_product")
PAID: Final = ("paid", "late", "refund_due", "repeated", "noted", *REFUSED, "late_of_old")
# Where an order stands, by the first byte of its id: what Valkey says, then what PostgreSQL says.
LIVE: Final[tuple[str | bool, ...]] = (
    "reserved", "paid", "expired", "cancelled", "in_review", "refund_due", False, True, "unknown", "gone", "broken",
)  # fmt: skip
RECORDED: Final[dict[int, str | Exception]] = {
    4: "delivered", 6: "delivered", 7: "refunded", 20: VaultLocked("torn"), 21: FAULTS["gone"], 22: FAULTS["broken"]
}  # fmt: skip
FATES: Final = (*range(len(LIVE)), 20, 21, 22, 23)


class Calls:
    """What the stores were asked, and how long they take."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.slow_s = 0.0

    def clear(self) -> None:
        """Forget all, and be quick."""
        self.done.clear()
        self.slow_s = 0.0

    async def answer(
        self, items: list[Item], word: Callable[[Item], str], told: Callable[[Item], Told], refused: Sequence[str]
    ) -> Sequence[Told]:
        """Answer a batch; remember each item that is not refused."""
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        self.done += [item for item in items if word(item) not in refused]
        for item in items:
            if word(item) in FAULTS:
                raise FAULTS[word(item)]
        return [told(item) for item in items if word(item) != "mute"]  # one answer too few is a fault too


class PureMemory:
    """Stands where a worker remembers what is sold out."""

    skus = frozenset(("remembered",))

    def tells(self, sku: str) -> bool:
        return sku == "remembered"

    def refuses(self, sku: str, order_id: bytes) -> type[Refusal] | None:
        return SoldOut if sku == "remembered" else None


class PureOrders:
    """Stands where ``OrderStore`` stands."""

    def __init__(self, calls: Calls, now_s: Callable[[], float]) -> None:
        """``now_s``: the loop's time, or a slow machine would let orders grow too old to be sent."""
        self._calls, self.memory = calls, PureMemory()
        self.places: Batches[PlaceItem, PlaceAnswer] = Batches(self._place, now_s=now_s, spacing_s=0.0)
        self.payments: Batches[PayItem, PayAnswer] = Batches(self._pay, now_s=now_s, spacing_s=0.0)
        self.cancels: Batches[CancelItem, CancelAnswer] = Batches(self._cancel, now_s=now_s, spacing_s=0.0)
        self.tracks: Batches[bytes, TrackAnswer | bool] = Batches(self._track, now_s=now_s, spacing_s=0.0)

    async def _place(self, items: list[PlaceItem]) -> Sequence[PlaceAnswer]:
        return await self._calls.answer(items, _sku, _placed, ())

    async def _pay(self, items: list[PayItem]) -> Sequence[PayAnswer]:
        return await self._calls.answer(items, _payment_word, _paid, tuple(REFUSED))

    async def _cancel(self, items: list[CancelItem]) -> Sequence[CancelAnswer]:
        return await self._calls.answer(items, _track_word, _cancelled, ())

    async def _track(self, ids: list[bytes]) -> Sequence[TrackAnswer | bool]:
        return await self._calls.answer(ids, _track_word, _tracked, [str(word) for word in LIVE])


class PureRecords(Records):
    """Stands where PostgreSQL's record of orders stands."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._lane = Batches(self._read, now_s=now_s, spacing_s=0.0)

    async def _read(self, ids: list[bytes]) -> Sequence[OrderRecord | VaultLocked | None]:
        for order_id in ids:
            said = RECORDED.get(order_id[0])
            if isinstance(said, Exception) and not isinstance(said, VaultLocked):
                raise said
        return [_recorded(order_id) for order_id in ids]


class PureCatalog:
    """Stands where ``Catalog`` stands."""

    async def product(self, sku: str) -> Product | None:
        if sku in FAULTS:
            raise FAULTS[sku]
        if sku == "unknown_product":
            return None
        return Product(sku=sku, title=f"The {sku} é", price=PRICE, currency="CNY", buyer_limit=2, hold_ms=900_000)

    async def page(self, after: str, limit: int) -> list[Product]:
        found = [await self.product(sku) for sku in ("plain", "sold_out") if sku > after]
        return [product for product in found if product is not None][:limit]

    async def free(self, skus: Sequence[str]) -> list[int]:
        return [len(sku) for sku in skus]


def an_order_id(fate: int) -> bytes:
    """Return the id of an order whose status is ``fate``: a place in LIVE or a key of RECORDED."""
    return bytes([fate]) * 16


def _sku(item: PlaceItem) -> str:
    return item.kind[0]


def _placed(item: PlaceItem) -> PlaceAnswer:
    sku, quantity = _sku(item), item.kind[2]
    word = sku if sku in PLACED else "accepted"
    return PlaceAnswer("accepted" if word == "plain" else word, "reserved", PRICE * quantity, "CNY", PAY_BY_MS)


def _payment_word(item: PayItem) -> str:
    word, known = item.report[1].partition("-")[0], item.report[6]
    if word == "late_of_old":  # known to PostgreSQL alone
        return "late" if known else "unknown_order"
    return word


def _paid(item: PayItem) -> PayAnswer:
    word = _payment_word(item)
    return PayAnswer(word if word in PAID else "paid", "reserved" if word == "noted" else "paid")


def _track_word(item: CancelItem | bytes) -> str:
    fate = (item if isinstance(item, bytes) else item.order_id)[0]
    return str(LIVE[fate]) if fate < len(LIVE) else "False"


def _cancelled(item: CancelItem) -> CancelAnswer:
    word = _track_word(item)
    if word == "reserved":
        return CancelAnswer("cancelled", "cancelled")
    return CancelAnswer("unknown_order" if word in ("False", "True") else "not_cancellable", word)


def _tracked(order_id: bytes) -> TrackAnswer | bool:
    said = LIVE[order_id[0]] if order_id[0] < len(LIVE) else False
    return said if isinstance(said, bool) else TrackAnswer(said, "plain", 1, PRICE, "CNY", PAY_BY_MS)


def _recorded(order_id: bytes) -> OrderRecord | VaultLocked | None:
    state = RECORDED.get(order_id[0])
    if state is None or isinstance(state, VaultLocked):
        return state
    assert isinstance(state, str)
    keys = (Secret("KEY-1"), Secret("KEY-é")) if state == "delivered" else ()
    return OrderRecord("plain", "ann", 1, PRICE, "CNY", state, PAY_BY_MS, keys)
