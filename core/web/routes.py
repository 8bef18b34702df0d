"""The buyers' HTTP in one table: the application is built from it, OpenAPI is written from it, a test compares."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from core import errors
from core.errors import Refusal
from core.sale.catalog.view import ProductList, ProductView
from core.sale.orders.place import OrderView, PlaceRequest
from core.sale.orders.track import TrackView
from core.sale.payments.gateways.sandbox import Callback


class CallbackView(msgspec.Struct, frozen=True):
    """What became of a callback: paid, late, refund_due, repeated or noted, and where the order stands."""

    outcome: str
    state: str


class Parameter(NamedTuple):
    """A parameter of a call besides its body."""

    name: str
    where: str  # path, query or header
    required: bool
    schema: dict[str, object]
    meaning: str


class Route(NamedTuple):
    """One call: its address, the handler's name, what goes in, what comes out, how it can be refused."""

    method: str
    path: str
    handler: str
    summary: str
    answers: dict[int, type[msgspec.Struct] | None]
    refusals: tuple[type[Refusal], ...]
    body: type[msgspec.Struct] | None = None
    parameters: tuple[Parameter, ...] = ()


_TEXT: Final[dict[str, object]] = {"type": "string"}
_ORDER: Final = Parameter("id", "path", True, {"type": "string", "pattern": "^[0-9a-f]{32}$"}, "The order's id")
_TOKEN: Final = Parameter("Authorization", "header", True, _TEXT, "Bearer and the order's token")
_STORE: Final = (errors.StoreUnavailable, errors.StoreUnknown)
_WRITE: Final = (*_STORE, errors.Overloaded, errors.Fenced)
_BODY: Final = (errors.MalformedJson, errors.InvalidRequest, errors.BodyTooLarge, errors.BodyTimeout)

ROUTES: Final = (
    Route(
        "GET",
        "/v1/products",
        "list_products",
        "What is on sale, a page at a time",
        {200: ProductList},
        (*_STORE, errors.InvalidPage, errors.Overloaded),
        parameters=(
            Parameter("after", "query", False, _TEXT, "The last SKU of the page before"),
            Parameter(
                "limit",
                "query",
                False,
                {"type": "integer", "minimum": 1, "maximum": 500},
                "Products in the page",
            ),
        ),
    ),
    Route(
        "GET",
        "/v1/products/{sku}",
        "show_product",
        "One product",
        {200: ProductView},
        (*_STORE, errors.UnknownProduct, errors.Overloaded),
        parameters=(Parameter("sku", "path", True, _TEXT, "The product's SKU"),),
    ),
    Route(
        "POST",
        "/v1/orders",
        "place_order",
        "Place an order: units are reserved, and that is on disk before the answer",
        {201: OrderView, 200: OrderView},
        (
            *_BODY,
            errors.InvalidQuantity,
            errors.IdempotencyKeyRequired,
            errors.IdempotencyKeyInvalid,
            errors.IdempotencyConflict,
            errors.UnknownProduct,
            errors.SoldOut,
            errors.LimitReached,
            errors.SaleNotOpen,
            errors.SaleClosed,
            *_WRITE,
        ),
        body=PlaceRequest,
        parameters=(
            Parameter("Idempotency-Key", "header", True, _TEXT, "Fresh for a new order, the same again for a retry"),
        ),
    ),
    Route(
        "GET",
        "/v1/orders/{id}",
        "track_order",
        "Where an order stands, and its card keys once delivered",
        {200: TrackView},
        (
            errors.TokenRequired,
            errors.TokenExpired,
            errors.UnknownOrder,
            errors.InvalidWait,
            errors.Overloaded,
            *_STORE,
        ),
        parameters=(
            _ORDER,
            _TOKEN,
            Parameter(
                "wait",
                "query",
                False,
                {"type": "number", "minimum": 0, "maximum": 30},
                "Seconds to wait for the state to change",
            ),
        ),
    ),
    Route(
        "DELETE",
        "/v1/orders/{id}",
        "cancel_order",
        "Cancel an unpaid order",
        {200: TrackView},
        (errors.TokenRequired, errors.TokenExpired, errors.UnknownOrder, errors.NotCancellable, *_WRITE),
        parameters=(_ORDER, _TOKEN),
    ),
    Route(
        "POST",
        "/v1/payments/{gateway}/callback",
        "payment_callback",
        "A payment gateway's signed word (the body shown is the sandbox's)",
        {200: CallbackView},
        (
            *_BODY,
            errors.UnknownGateway,
            errors.SignatureRequired,
            errors.SignatureInvalid,
            errors.CallbackStale,
            errors.EventReused,
            errors.AmountMismatch,
            errors.CurrencyMismatch,
            errors.UnknownOrder,
            *_WRITE,
        ),
        body=Callback,
        parameters=(
            Parameter("gateway", "path", True, _TEXT, "The gateway's name, e.g. sandbox"),
            Parameter("X-Signature", "header", True, _TEXT, 't=<unix>,v1=<hex HMAC-SHA256 of "t.body">'),
        ),
    ),
    Route("GET", "/openapi.json", "show_openapi", "This description", {200: None}, ()),
)
