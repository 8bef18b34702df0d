"""Place: turn a buyer's request into one accepted order, or one honest refusal.

The hot path. One request costs: one decode, two HMACs (the order's name, its token), one place in a batch, one encode.
No lookup and no await of its own before the batch. On return one thing is true: the answer is on disk in Valkey
(``appendfsync always``), or nothing was changed, or a ``StoreUnknown`` says that nobody knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from typing import Final

import msgspec

from core.backends.line import Line
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
from core.ids import ORDER_ID_BYTES, Names, Tokens
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
_SKU_AT_FIRST_SIGHT: Final = re.compile(rb'"sku"\s*:\s*"([A-Za-z0-9._-]{1,64})"').search


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


def sku_at_first_sight(body: bytes) -> bytes:
    """Return the SKU that a body seems to ask for, empty if none is seen. A tenth of what decoding costs."""
    found = _SKU_AT_FIRST_SIGHT(body)
    return found[1] if found else b""


_known_skus: set[str] = set()  # well-formed ones seen lately; a hot one need not be matched again
_kinds: dict[tuple[str, int], Kind] = {}  # likewise of SKU and quantity: both are right, and this is what they make
_KNOWN_MOST: Final = 10_000


def _is_sku(sku: str) -> bool:
    if not _SKU.fullmatch(sku):
        return False
    if len(_known_skus) >= _KNOWN_MOST:
        _known_skus.clear()
    _known_skus.add(sku)
    return True


def _kind_of_request(body: bytes) -> Kind | None:
    """Return the kind of an order in full, and remember it; None: the order is not right."""
    try:
        request = read_request(body)
    except Refusal:
        return None
    if len(_kinds) >= _KNOWN_MOST:
        _kinds.clear()
    kind = _kinds[request.sku, request.quantity] = kind_of(request.sku, request.quantity)
    return kind


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
        self._order_id, self._memory = names.order_id, store.memory
        self.remembered: Container[str] = store.memory.skus  # ``refuses`` no order of any other SKU
        self.room = store.places.room  # how many orders would not be refused as ``Overloaded``: ask before any work
        self.put_all = store.places.put_all  # items of ``read``, each with a sink that takes a ``PlaceAnswer``
        self.put_for = store.places.put_for  # one for which there may be no room
        self.come_again_s = Line(self.called).join  # for whom there was none: in how many seconds there will be
        self._pay_url = '"pay_url":' + msgspec.json.encode(pay_url).decode()[:-1]  # the order's name follows

    def called(self) -> int:
        """Return how many orders the store was asked to place so far."""
        return self._store.places.called

    def is_hopeless(self, sku_bytes: bytes) -> bool:
        """Return whether an order for which there is no room is to be turned away with nothing more done for it.

        Not so where its SKU has little under way, which has a reserve, and where memory can say more: sold out, not
        open. What ``sku_at_first_sight`` finds is enough to turn away the flood; who gets by is read in full.
        """
        sku = sku_bytes.decode("latin-1")
        return not sku or not (self._store.places.lets_in(sku) or self._memory.tells(sku))

    async def place(self, request: PlaceRequest, idempotency_key: str) -> tuple[bool, bytes] | type[Refusal]:
        """Return (True for a new order, False for a replayed one; the ``OrderView`` as JSON), or the refusal.

        Raises:
            Overloaded, Fenced, StoreUnavailable: nothing was changed. StoreUnknown: nobody knows.
        """
        order_id = self._names.order_id(request.buyer, idempotency_key)
        item = PlaceItem(order_id, request.buyer, kind_of(request.sku, request.quantity))
        refusal = self.refuses(item)
        if refusal is not None:
            return refusal
        words = self.words(item.kind, await self._store.places.put(item))
        return words.refusal or (words.is_new, words.of(order_id))

    def read(self, body: bytes, key: str) -> PlaceItem | None:
        """Return what the script needs to decide an order, or None if anything of it is not plainly right.

        The same rules as ``read_request`` and ``read_idempotency_key``, without their words: they say what is wrong.
        """
        try:
            request = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        buyer = request.buyer
        kind = _kinds.get((request.sku, request.quantity))
        if (
            kind is None
            or not (buyer.isprintable() and 0 < len(buyer) <= BUYER_CHARS_MOST)
            or body.count(b'"') > _QUOTES
        ):
            kind = _kind_of_request(body)
        # Visible ASCII: three looks in C instead of a pattern, for a third of the time.
        if kind is None or not (
            0 < len(key) <= IDEMPOTENCY_KEY_CHARS_MOST and key.isascii() and key.isprintable() and " " not in key
        ):
            return None
        return PlaceItem(self._order_id(buyer, key), buyer, kind)

    def refuses(self, item: PlaceItem) -> type[Refusal] | None:
        """Return why an order is certainly refused, from memory; None: the store must be asked."""
        return self._memory.refuses(item.kind[0], item.order_id)

    def words(self, kind: Kind, answer: PlaceAnswer) -> Words:
        """Return what the script's answer to orders of one kind means for their buyers."""
        refusal = REFUSED.get(answer.outcome)
        if refusal is not None:
            return Words(refusal)
        terms = {
            "state": answer.state,
            "sku": kind[0],
            "quantity": kind[2],
            "amount": answer.amount,
            "currency": answer.currency,
            "pay_by": iso8601(answer.pay_by_ms),
        }
        tokens = self._names.tokens(answer.pay_by_ms // 1000 + TOKEN_LIFE_S)
        after = f'",{msgspec.json.encode(terms).decode()[1:-1]},{self._pay_url}'
        return Words(None, answer.outcome == "accepted", tokens, after)


class Words:
    """An answer of the script to orders of one kind: a refusal, or the JSON of an ``OrderView`` around their names."""

    __slots__ = ("_after", "_before", "_tokens", "is_new", "refusal")

    def __init__(
        self, refusal: type[Refusal] | None, is_new: bool = False, tokens: Tokens | None = None, after: str = ""
    ) -> None:
        """``after``: what stands behind the token, up to the order's name that ends ``pay_url``."""
        self.refusal, self.is_new = refusal, is_new  # not new: replayed
        self._before, self._tokens, self._after = '{"order_id":"', tokens, after

    def behind(self, head: Callable[[int], bytes]) -> None:
        """Have ``of`` put a head in front, made for the length of a body: all of a kind have the same."""
        length = len(self.of(bytes(ORDER_ID_BYTES)))
        self._before = head(length).decode("latin-1") + self._before

    def of(self, order_id: bytes) -> bytes:
        """Return the answer to the order of this id."""
        assert self._tokens is not None, "a refusal has no words of its own"
        name = order_id.hex()
        return f'{self._before}{name}","token":"{self._tokens.of(order_id)}{self._after}{name}"}}'.encode()
