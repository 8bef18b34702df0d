"""The order scripts, each behind a batched lane with a connection of its own.

A lane's connection carries the calls of one verb, so a slow batch of one never stands before another verb.
Round trips: one a batch. What is sent: the epoch and one packed argument; to track.lua the joined ids alone, to
settle.lua these and the cursor too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from core.backends.batches import CALM_SPACING_S, Batches
from core.backends.limit import Limit
from core.backends.texts import ORDERS_GROUND, SHARD_GROUND, Script
from core.backends.valkey import ROOT, Argument, ShardConnection
from core.errors import FlashproofError
from core.facts import frame
from core.ids import fingerprint, split_ids
from core.sale.orders.answers import (
    CANCEL_ANSWERS,
    PAY_ANSWERS,
    PLACE_ANSWERS,
    TRACK_ANSWERS,
    CancelAnswer,
    Lasting,
    PayAnswer,
    PlaceAnswer,
    TrackAnswer,
)
from core.sale.orders.memory import Memory
from core.settings import ORDERS_LEAST, WAITING_MOST
from core.telemetry import BATCH_SIZE, CALL_SECONDS

PLACE: Final = Script("sale/orders/place.lua", *SHARD_GROUND)
PAY: Final = Script("sale/orders/pay.lua", *ORDERS_GROUND)
CANCEL: Final = Script("sale/orders/cancel.lua", *ORDERS_GROUND)
EXPIRE: Final = Script("sale/orders/expire.lua", *ORDERS_GROUND)
TRACK: Final = Script("sale/orders/track.lua", *ORDERS_GROUND)
SETTLE: Final = Script("sale/orders/settle.lua", *ORDERS_GROUND)
_pack = msgspec.msgpack.Encoder().encode
_expire_answer = msgspec.msgpack.Decoder(tuple[int, int])


Kind: TypeAlias = tuple[str, str, int]


@lru_cache(maxsize=10_000)  # a hot SKU is asked for over and over
def kind_of(sku: str, quantity: int) -> Kind:
    """Return what many orders have alike: sku, fingerprint, quantity."""
    return sku, fingerprint(sku, quantity), quantity


class PlaceItem(msgspec.Struct, frozen=True, gc=False):
    """One order to place. A struct because making one costs a third of making a named tuple."""

    order_id: bytes
    buyer: str
    kind: Kind


def _sku_of(item: PlaceItem) -> str:
    return item.kind[0]


class PayItem(NamedTuple):
    """One report of a gateway: gateway, event, status, amount, currency, paid_at_ms, known (see pay.lua)."""

    order_id: bytes
    report: tuple[str, str, str, int, str, int, list[Any] | bool]


class CancelItem(NamedTuple):
    """One order to cancel; ``uncharged`` when the gateway was asked and had charged nothing."""

    order_id: bytes
    uncharged: bool


def by_kind(items: Sequence[PlaceItem]) -> dict[Kind, Sequence[PlaceItem]]:
    """Return the orders of each kind; in a flash sale nearly every batch is of one."""
    first = items[0].kind
    same = [item for item in items if item.kind is first]
    if len(same) == len(items):
        return {first: items}
    kinds: dict[Kind, list[PlaceItem]] = {}
    for item in items:
        kinds.setdefault(item.kind, []).append(item)
    return dict(kinds)


def _text(joined: bytes) -> bytes:
    """Return bytes as a msgpack text: Lua's reader knows no binary type, and its texts are bytes."""
    return b"\xdb" + len(joined).to_bytes(4, "big") + joined


def _raw(joined: bytes) -> msgspec.Raw:
    return msgspec.Raw(_text(joined))


def pack_said(said: Sequence[Any], ids: Sequence[bytes]) -> bytes:
    """Return the argument of pay.lua or cancel.lua: what is said of each order, and the orders' ids, joined."""
    return _pack(said) + _text(b"".join(ids))


def pack_places(items: Sequence[PlaceItem]) -> bytes:
    """Return the argument of place.lua for one order or more; the answers come in the order of ``by_kind``."""
    kinds, ids, buyers = [], [], []
    for (sku, fingerprint_, quantity), its in by_kind(items).items():
        its_ids, its_buyers = [item.order_id for item in its], [item.buyer for item in its]
        names, frames = b"".join([one[:8] for one in its_ids]), b"".join(map(frame, its_ids, its_buyers))
        kinds.append((sku, fingerprint_, quantity, len(its_ids), _raw(names), _raw(frames)))
        ids += its_ids
        buyers += its_buyers
    count = len(ids)
    twins = len(set(ids)) < count or len(set(buyers)) < count
    packed_ids = b"\xdc" + count.to_bytes(2, "big") + b"\xb0" + b"\xb0".join(ids)  # an array of texts of 16 bytes
    return _pack(kinds) + packed_ids + _pack(buyers) + _pack(twins)


def read_places(items: Sequence[PlaceItem], reply: bytes) -> tuple[list[PlaceAnswer], list[Lasting]]:
    """Return the answer of each order (many share one object), and for how long which refusals are good."""
    answers, said, lasting = PLACE_ANSWERS.decode(reply)
    kinds = by_kind(items)
    told = {
        kind: [answers[of - 1]] * len(its) if isinstance(of, int) else [answers[number - 1] for number in of]
        for (kind, its), of in zip(kinds.items(), said, strict=True)
    }
    if len(told) == 1:
        return told.popitem()[1], lasting
    turns = {kind: iter(its) for kind, its in told.items()}
    return [next(turns[item.kind]) for item in items], lasting


class Lane:
    """A connection with its measurements."""

    def __init__(self, url: str, name: str, *, once: bool = False) -> None:
        self._connection = ShardConnection(url, once=once)
        self._seconds = CALL_SECONDS.labels(name).add
        self.size = BATCH_SIZE.labels(name).add

    async def call(self, script: Script, *arguments: Argument, fenced: bool = True) -> Any:
        """Run a script; errors as ``ShardConnection.call`` names them."""
        began = time.perf_counter()
        try:
            return await self._connection.call(script, *arguments, fenced=fenced)
        finally:
            self._seconds(time.perf_counter() - began)

    async def command(self, *arguments: Argument) -> Any:
        """Send one plain command; errors as ``ShardConnection.command`` names them."""
        return await self._connection.command(*arguments)

    async def close(self) -> None:
        """Drop the connection."""
        await self._connection.close()


class OrderStore:
    """The four verbs that buyers and gateways wait for. Each attribute is a lane to ``put`` items into.

    ``limit`` is of new orders alone: no payment and no question about an accepted order is ever refused for them.
    """

    def __init__(self, valkey_url: str) -> None:
        self._lanes = {name: Lane(valkey_url, name) for name in ("place", "pay", "cancel", "track", "ids")}
        self.memory = Memory(self._read_ids, time.monotonic)
        self.limit = Limit(ORDERS_LEAST, WAITING_MOST)
        self.places: Batches[PlaceItem, PlaceAnswer] = Batches(
            self._place, sent=self._lanes["place"].size, limit=self.limit, at_once=2, key=_sku_of
        )
        self.payments: Batches[PayItem, PayAnswer] = Batches(
            self._pay, sent=self._lanes["pay"].size, spacing_s=CALM_SPACING_S
        )
        self.cancels: Batches[CancelItem, CancelAnswer] = Batches(self._cancel, sent=self._lanes["cancel"].size)
        self.tracks: Batches[bytes, TrackAnswer | bool] = Batches(
            self._track, sent=self._lanes["track"].size, waiting_most=50_000, spacing_s=CALM_SPACING_S
        )

    async def _place(self, items: list[PlaceItem]) -> Sequence[PlaceAnswer]:
        asked_at = time.monotonic()
        try:
            reply = await self._lanes["place"].call(PLACE, pack_places(items))
        except FlashproofError:
            self.memory.forget()
            raise
        answers, lasting = read_places(items, reply)
        if lasting:
            self.memory.learn(lasting, asked_at)
        return answers

    async def _read_ids(self, sku: str, gen: int, begin: int) -> bytes:
        joined: bytes = await self._lanes["ids"].command("GETRANGE", f"{ROOT}:ids:{gen}:{sku}", begin, -1)
        return joined

    async def _pay(self, items: list[PayItem]) -> Sequence[PayAnswer]:
        argument = pack_said([item.report for item in items], [item.order_id for item in items])
        return PAY_ANSWERS.decode(await self._lanes["pay"].call(PAY, argument))

    async def _cancel(self, items: list[CancelItem]) -> Sequence[CancelAnswer]:
        argument = pack_said([item.uncharged for item in items], [item.order_id for item in items])
        return CANCEL_ANSWERS.decode(await self._lanes["cancel"].call(CANCEL, argument))

    async def _track(self, ids: list[bytes]) -> Sequence[TrackAnswer | bool]:
        return TRACK_ANSWERS.decode(await self._lanes["track"].call(TRACK, b"".join(ids), fenced=False))

    async def close(self) -> None:
        """Drop every connection."""
        for lane in self._lanes.values():
            await lane.close()


class ExpiryStore:
    """The release of overdue reservations."""

    def __init__(self, valkey_url: str) -> None:
        self._lane = Lane(valkey_url, "expire")

    async def release_due(
        self, most: int, ask_again_ms: int, uncharged: Sequence[bytes]
    ) -> tuple[int, int, list[bytes]]:
        """Release up to ``most`` overdue reservations.

        Returns:
            how many were released; when the next one is due (ms since 1970, 0: none); ids to ask the gateway about.
        """
        argument = _pack(most) + _pack(ask_again_ms) + _text(b"".join(uncharged))
        packed, ask = await self._lane.call(EXPIRE, argument)
        released, next_due_ms = _expire_answer.decode(packed)
        return released, next_due_ms, split_ids(ask)

    async def close(self) -> None:
        """Drop the connection."""
        await self._lane.close()


class SettleStore:
    """What the projector tells Valkey after each commit, on a connection that never reconnects in silence."""

    def __init__(self, valkey_url: str) -> None:
        self._lane = Lane(valkey_url, "settle", once=True)

    async def settle(self, orders: Sequence[tuple[bytes, str, bool]], keep_from: str) -> int:
        """Tell the states PostgreSQL committed and trim the journal below ``keep_from`` (``ms-seq``; '' trims nothing).

        Args:
            orders: (order id, state, undo), see settle.lua; at most ``BATCH_MOST``.

        Returns:
            how many units went back to the free stock.
        """
        states = _pack([(state, undo) for _, state, undo in orders])
        ids = b"".join([order_id for order_id, _, _ in orders])
        return int(await self._lane.call(SETTLE, states, ids, keep_from, fenced=False))

    async def close(self) -> None:
        """Drop the connection."""
        await self._lane.close()
