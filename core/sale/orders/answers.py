"""What the order scripts answer, one struct a script: arrays on the wire, in the order the .lua files say."""

from __future__ import annotations

import msgspec


class PlaceAnswer(msgspec.Struct, frozen=True, array_like=True):
    """``outcome`` is accepted, replayed, conflict, not_open, closed, limit_reached, sold_out or unknown_product."""

    outcome: str
    state: str = ""
    amount: int = 0
    currency: str = ""
    pay_by_ms: int = 0


class Lasting(msgspec.Struct, frozen=True, array_like=True):
    """For ``good_ms`` from the call, nobody accepts a new order of the SKU; see place.lua."""

    sku: str
    outcome: str  # sold_out or not_open
    good_ms: int
    gen: int
    ids_bytes: int
    ids_before_bytes: int


class PayAnswer(msgspec.Struct, frozen=True, array_like=True):
    """``outcome`` as in pay.lua; ``state`` is where the order stands now."""

    outcome: str
    state: str = ""


class CancelAnswer(msgspec.Struct, frozen=True, array_like=True):
    """``outcome`` as in cancel.lua; ``state`` is where the order stands now."""

    outcome: str
    state: str = ""


class TrackAnswer(msgspec.Struct, frozen=True, array_like=True):
    """An order as Valkey has it."""

    state: str
    sku: str
    quantity: int
    amount: int
    currency: str
    pay_by_ms: int


PLACE_ANSWERS = msgspec.msgpack.Decoder(tuple[list[PlaceAnswer], list[int | list[int]], list[Lasting]])
PAY_ANSWERS = msgspec.msgpack.Decoder(list[PayAnswer])
CANCEL_ANSWERS = msgspec.msgpack.Decoder(list[CancelAnswer])
TRACK_ANSWERS = msgspec.msgpack.Decoder(list[TrackAnswer | bool])
