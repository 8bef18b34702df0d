"""Place: turn a buyer's request into one accepted order, or one honest refusal.

The hot path. One request costs: one decode, two HMACs (the order's name, its token), one place in a batch, one encode.
No lookup and no await of its own before the batch. On return one thing is true: the answer is on disk in Valkey
(``appendfsync always``), or nothing was changed, or a ``StoreUnknown`` says that nobody knows.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from core.backends.batches import Sink
from core.clock import iso8601
from core.errors import (
    IdempotencyConflict,
    IdempotencyKeyInvalid,
    IdempotencyKeyRequired,
    InvalidQuantity,
    InvalidRequest,
    LimitReached,
    MalformedJson,
    Refusal,
    SaleClosed,
    SaleNotOpen,
    SoldOut,
    UnknownProduct,
)
from core.ids import Names, Tokens
from core.sale.body import repeated_field
from core.sale.orders.answers import PlaceAnswer
from core.sale.orders.store import Kind, OrderStore, PlaceItem, kind_of
from core.settings import BUYER_CHARS_MOST, IDEMPOTENCY_KEY_CHARS_MOST, QUANTITY_MOST, TOKEN_LIFE_S

REFUSED: Final[dict[str, type[Refusal]]] = {
    "conflict": IdempotencyConflict,
    "not_open": SaleNotOpen,
    "closed": SaleClosed,
    "limit_reached": LimitReached,
    "sold_out": SoldOut,
    "unknown_product": UnknownProduct,
}
_SKU: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_QUOTES: Final = 10  # around three names and two texts
_BUYER: Final = re.compile(rf"[^\x00-\x1f\x7f]{{1,{BUYER_CHARS_MOST}}}")


class PlaceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /v1/orders."""

    sku: str
    buyer: str
    quantity: int


class OrderView(msgspec.Struct, frozen=True):
    """The body of 201 and 200 of POST /v1/orders. A retry gets the same fields; only ``state`` may have moved on."""

    order_id: str
    token: str
    state: str
    sku: str
    quantity: int
    amount: int
    currency: str
    pay_by: str
    pay_url: str


_decode = msgspec.json.Decoder(PlaceRequest).decode


def read_request(body: bytes) -> PlaceRequest:
    """Return the checked request.

    Raises:
        MalformedJson, InvalidRequest, InvalidQuantity: each says which field and why.
    """
    try:
        request = _decode(body)
    except msgspec.ValidationError as error:
        if "$.quantity" in str(error) or "out of range" in str(error).lower():
            raise InvalidQuantity(f"{error}. It must be a whole number from 1 to {QUANTITY_MOST}.") from error
        raise InvalidRequest(f"{error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedJson(f"The body is not JSON: {error}.") from error
    if not 1 <= request.quantity <= QUANTITY_MOST:
        raise InvalidQuantity(f"quantity must be a whole number from 1 to {QUANTITY_MOST}, in plain digits.")
    if request.sku not in _known_skus and not _is_sku(request.sku):
        raise InvalidRequest("sku must be 1 to 64 letters, digits, dots, dashes or underscores.")
    buyer = request.buyer  # printable is narrower than allowed, and four times as fast as the pattern
    if not (0 < len(buyer) <= BUYER_CHARS_MOST and buyer.isprintable()) and not _BUYER.fullmatch(buyer):
        raise InvalidRequest(f"buyer must be 1 to {BUYER_CHARS_MOST} characters without control characters.")
    twice = repeated_field(body, _QUOTES)
    if twice is not None:
        raise InvalidRequest(f"{twice} stands twice.")
    return request


_known_skus: set[str] = set()  # well-formed ones seen lately; a hot one need not be matched again
_KNOWN_SKUS_MOST: Final = 10_000


def _is_sku(sku: str) -> bool:
    if not _SKU.fullmatch(sku):
        return False
    if len(_known_skus) >= _KNOWN_SKUS_MOST:
        _known_skus.clear()
    _known_skus.add(sku)
    return True


def read_idempotency_key(values: list[str]) -> str:
    """Return the one Idempotency-Key of a request's header values.

    Raises:
        IdempotencyKeyRequired, IdempotencyKeyInvalid.
    """
    if not values:
        raise IdempotencyKeyRequired
    key = values[0]  # visible ASCII; three looks in C instead of a pattern, for a third of the time
    visible = 0 < len(key) <= IDEMPOTENCY_KEY_CHARS_MOST and key.isascii() and key.isprintable() and " " not in key
    if len(values) > 1 or not visible:
        raise IdempotencyKeyInvalid
    return key


class Placing:
    """The verb, with what it needs for every order."""

    def __init__(self, names: Names, store: OrderStore, pay_url: str) -> None:
        self._names, self._store = names, store
        self.is_full = store.places.is_full  # whether an order would be refused as ``Overloaded``: ask before any work
        self._pay_url = '"pay_url":' + msgspec.json.encode(pay_url).decode()[:-1]  # the order's name follows
        self._said = _Said((), PlaceAnswer(""), SoldOut, names.tokens(0), "")

    def called(self) -> int:
        """Return how many orders the store was asked to place so far."""
        return self._store.places.called

    async def place(self, request: PlaceRequest, idempotency_key: str) -> tuple[bool, bytes] | type[Refusal]:
        """Return (True for a new order, False for a replayed one; the ``OrderView`` as JSON), or the refusal.

        Raises:
            Overloaded, Fenced, StoreUnavailable: nothing was changed. StoreUnknown: nobody knows.
        """
        item = self.item(request, idempotency_key)
        refusal = self._store.memory.refuses(request.sku, item.order_id)
        if refusal is not None:
            return refusal
        return self.told(item, await self._store.places.put(item))

    def place_for(self, item: PlaceItem, sink: Sink) -> type[Refusal] | None:
        """Do as ``place``, but let the script's answer go to ``sink``, which reads it with ``told``.

        Returns:
            a refusal: then nothing comes to ``sink``.

        Raises:
            Overloaded: nothing was changed.
        """
        refusal = self._store.memory.refuses(item.kind[0], item.order_id)
        if refusal is None:
            self._store.places.put_for(item, sink)
        return refusal

    def item(self, request: PlaceRequest, idempotency_key: str) -> PlaceItem:
        """Return what the script needs to decide a request."""
        order_id = self._names.order_id(request.buyer, idempotency_key)
        return PlaceItem(order_id, request.buyer, kind_of(request.sku, request.quantity))

    def told(self, item: PlaceItem, answer: PlaceAnswer) -> tuple[bool, bytes] | type[Refusal]:
        """Return what the script's answer means for the buyer: as ``place``."""
        said = self._said
        # The orders of a batch share the very answer, and most of them their kind: what they have alike is made once.
        if said.answer is not answer or said.kind is not item.kind:
            said = self._said = self._say(item.kind, answer)
        if said.refusal is not None:
            return said.refusal
        name = item.order_id.hex()
        text = f'{{"order_id":"{name}","token":"{said.tokens.of(item.order_id)}",{said.terms}{name}"}}'
        return answer.outcome == "accepted", text.encode()

    def _say(self, kind: Kind, answer: PlaceAnswer) -> _Said:
        refusal = REFUSED.get(answer.outcome)
        if refusal is not None:
            return _Said(kind, answer, refusal, self._said.tokens, "")
        terms = {
            "state": answer.state,
            "sku": kind[0],
            "quantity": kind[2],
            "amount": answer.amount,
            "currency": answer.currency,
            "pay_by": iso8601(answer.pay_by_ms),
        }
        tokens = self._names.tokens(answer.pay_by_ms // 1000 + TOKEN_LIFE_S)
        text = msgspec.json.encode(terms).decode()[1:-1]
        return _Said(kind, answer, None, tokens, f"{text},{self._pay_url}")


class _Said(NamedTuple):
    """One answer of the script to one kind of order: all that it says of each of them but the names."""

    kind: Kind | tuple[()]
    answer: PlaceAnswer
    refusal: type[Refusal] | None
    tokens: Tokens
    terms: str  # of an ``OrderView``, as JSON without braces; the order's name follows
