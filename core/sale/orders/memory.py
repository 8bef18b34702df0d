"""What this worker may refuse from memory: a SKU that is sold out or not open, for as long as the store's word is good.

The store says how long nobody, on no worker, can accept a new order of the SKU (see shard.lua: what comes back to a SKU
that had nothing rests first), and names every order there is. Within that time an order id that is not among those
names is certainly new, and certainly refused: the flood after the last unit never reaches Valkey, and who retries an
accepted order is still sent there and finds it. A name is the beginning of an id: who shares one with an order is sent
there as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from core.errors import FlashproofError, Refusal, SaleNotOpen, SoldOut
from core.ids import ORDER_NAME_BYTES, split_names
from core.sale.orders.answers import Lasting
from core.settings import KNOWN_ORDERS_MOST, SKUS_REMEMBERED_MOST

_REFUSALS: Final[dict[str, type[Refusal]]] = {"sold_out": SoldOut, "not_open": SaleNotOpen}
_ASK_AGAIN: Final = 0.6  # of the good time is over: one request may ask the store again, the others are still refused

# (SKU, generation, from byte) -> the joined names from there
ReadIds = Callable[[str, int, int], Awaitable[bytes]]


class _Sku:
    """What is known of one SKU."""

    __slots__ = ("ask_at", "gen", "known", "read", "read_before", "reading", "refusal", "until")

    def __init__(self) -> None:
        self.refusal: type[Refusal] = SoldOut
        self.until = self.ask_at = 0.0  # monotonic seconds
        self.gen = -1
        self.read = self.read_before = 0  # bytes of both generations' names that `known` has
        self.known: set[bytes] = set()
        self.reading: asyncio.Task[None] | None = None


class Memory:
    """The refusals of one worker."""

    def __init__(self, read_ids: ReadIds, clock: Callable[[], float]) -> None:
        """``clock`` gives monotonic seconds."""
        self._read_ids, self._clock = read_ids, clock
        self.skus: dict[str, _Sku] = {}  # whatever SKU is not in here is not refused

    def tells(self, sku: str) -> bool:
        """Return whether orders of a SKU are refused from here just now."""
        known = self.skus.get(sku)
        return known is not None and self._clock() < known.until

    def refuses(self, sku: str, order_id: bytes) -> type[Refusal] | None:
        """Return why an order is certainly refused, or None if the store must be asked."""
        known = self.skus.get(sku)
        if known is None:
            return None
        now = self._clock()
        if now >= known.until or order_id[:ORDER_NAME_BYTES] in known.known:
            return None
        if now >= known.ask_at:
            known.ask_at = known.until  # one is enough
            return None
        return known.refusal

    def learn(self, lasting: Sequence[Lasting], asked_at: float) -> None:
        """Take what the store said in a call that was sent at ``asked_at`` (monotonic seconds)."""
        for said in lasting:
            if (said.ids_bytes + said.ids_before_bytes) // ORDER_NAME_BYTES > KNOWN_ORDERS_MOST:
                continue
            known = self.skus.get(said.sku) or self._new(said.sku)
            if known.gen != said.gen:
                known.gen, known.read, known.read_before, known.known = said.gen, 0, 0, set()
                known.until = 0.0
            if (known.read, known.read_before) == (said.ids_bytes, said.ids_before_bytes):
                # Counted from before the call: the store's word is not younger than that.
                known.refusal = _REFUSALS[said.outcome]
                known.until = asked_at + said.good_ms / 1000
                known.ask_at = asked_at + said.good_ms * _ASK_AGAIN / 1000
            elif known.reading is None:
                known.until = 0.0
                known.reading = asyncio.create_task(self._read(known, said))

    def forget(self) -> None:
        """Know nothing any more: the store may be another one."""
        for known in self.skus.values():
            known.until = 0.0

    async def _read(self, known: _Sku, said: Lasting) -> None:
        """Read the names that are missing; what the store says next is then good at once."""
        try:
            new = await self._read_ids(said.sku, said.gen, known.read)
            before = await self._read_ids(said.sku, said.gen - 1, known.read_before)
        except FlashproofError:
            return  # the next refusal asks again
        finally:
            known.reading = None
        if known.gen == said.gen:
            for joined in (new, before):
                known.known.update(split_names(joined))
            known.read += len(new)
            known.read_before += len(before)

    def _new(self, sku: str) -> _Sku:
        if len(self.skus) >= SKUS_REMEMBERED_MOST:
            self.skus.clear()
        known = self.skus[sku] = _Sku()
        return known
