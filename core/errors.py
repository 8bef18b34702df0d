"""Every way to say no, in one tree: a stable code, an HTTP status, and a message that says what to do.

A ``Refusal`` is an answer to a request (RFC 9457 problem document). A ``Cut`` ends a connection that cannot be
answered. A ``Fault`` is something wrong with the deployment that an operator must mend. The docstring is the message.
"""

from __future__ import annotations

from typing import ClassVar


class FlashproofError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str = "") -> None:
        """Take what is particular to this case; without it the class's own message is used."""
        super().__init__(detail or self.message())

    @classmethod
    def message(cls) -> str:
        """Return the general message of this kind of error."""
        return " ".join((cls.__doc__ or "").split())


class Refusal(FlashproofError):
    """The request was refused."""

    status: ClassVar[int] = 400
    outcome: ClassVar[str | None] = "not-executed"  # what X-Outcome says; None: no header
    retry_after_s: ClassVar[int | None] = None
    retry_after_most_s: ClassVar[int | None] = None  # drawn from retry_after_s to this, so that not all return at once


# --- the request itself is wrong -----------------------------------------------------------------------------


class MalformedJson(Refusal):
    """The body is not JSON. Send one JSON object in UTF-8."""

    code, status = "malformed_json", 400


class InvalidRequest(Refusal):
    """A field is missing, unknown or of the wrong type. See /openapi.json for the exact shape."""

    code, status = "invalid_request", 422


class InvalidQuantity(Refusal):
    """The quantity must be a whole number from 1 to the shop's limit, written as plain digits."""

    code, status = "invalid_quantity", 422


class IdempotencyKeyRequired(Refusal):
    """The Idempotency-Key header is missing. Send a fresh random key with every new order, and the same on a retry."""

    code, status = "idempotency_key_required", 400


class IdempotencyKeyInvalid(Refusal):
    """The Idempotency-Key must be 1 to 128 visible ASCII characters, sent once."""

    code, status = "idempotency_key_invalid", 400


class BodyTooLarge(Refusal):
    """The body is larger than this call accepts."""

    code, status = "body_too_large", 413


class BodyTimeout(Refusal):
    """The body did not arrive in time. Send it whole, without pauses."""

    code, status = "body_timeout", 408


class HeadTimeout(Refusal):
    """The head of the request did not arrive in time. Send it whole, without pauses."""

    code, status = "head_timeout", 408


class HeadTooLarge(Refusal):
    """The head of the request is larger than the shop accepts. Send fewer or shorter header fields."""

    code, status = "head_too_large", 431


class TooManyConnections(Refusal):
    """Too many connections are open from this address. Close some, or use those that are open for more requests."""

    code, status, retry_after_s = "too_many_connections", 429, 1


class MalformedRequest(Refusal):
    """The request is not well-formed HTTP/1.1."""

    code, status = "malformed_request", 400


class NotFound(Refusal):
    """There is nothing at this address. See /openapi.json for the calls there are."""

    code, status = "not_found", 404


class MethodNotAllowed(Refusal):
    """This address does not know that method."""

    code, status = "method_not_allowed", 405


class InvalidPage(Refusal):
    """limit must be a whole number from 1 to 500."""

    code, status = "invalid_page", 422


class InvalidWait(Refusal):
    """wait must be a number of seconds from 0 to 30."""

    code, status = "invalid_wait", 422


# --- placing -------------------------------------------------------------------------------------------------


class UnknownProduct(Refusal):
    """No product has this SKU. See GET /v1/products."""

    code, status = "unknown_product", 404


class SoldOut(Refusal):
    """Not enough units are free just now. Unpaid reservations come back; you may try again."""

    code, status = "sold_out", 409


class LimitReached(Refusal):
    """This order would exceed what one buyer may have of this product."""

    code, status = "limit_reached", 409


class SaleNotOpen(Refusal):
    """The sale of this product has not begun."""

    code, status = "sale_not_open", 403


class SaleClosed(Refusal):
    """The sale of this product has ended."""

    code, status = "sale_closed", 403


class IdempotencyConflict(Refusal):
    """This Idempotency-Key was used before with another order. Use a new key for a new order."""

    code, status = "idempotency_conflict", 422


class Fenced(Refusal):
    """Selling is closed while the stores are being brought to agree. Nothing was changed; try again in a second."""

    code, status, retry_after_s = "shop_recovering", 503, 1


class Overloaded(Refusal):
    """Too many requests are waiting already. Nothing was changed; try again after the time given."""

    code, status, retry_after_s, retry_after_most_s = "overloaded", 503, 1, 2

    def __init__(self, detail: str = "", again_s: int | None = None) -> None:
        """``again_s``: after how many seconds there will be room; None: drawn as for the class."""
        super().__init__(detail)
        self.again_s = again_s


# --- an order's owner ----------------------------------------------------------------------------------------


class TokenRequired(Refusal):
    """Send the order's token as Authorization: Bearer <token>."""

    code, status = "token_required", 401


class TokenExpired(Refusal):
    """The order's token is no longer valid. Ask the shop's staff with your order id."""

    code, status = "token_expired", 401


class UnknownOrder(Refusal):
    """There is no such order under this token."""

    code, status = "unknown_order", 404


class NotCancellable(Refusal):
    """Only an unpaid, live reservation can be cancelled; this order is past that."""

    code, status = "not_cancellable", 409


# --- payment callbacks ---------------------------------------------------------------------------------------


class UnknownGateway(Refusal):
    """No payment gateway of this name is set up."""

    code, status = "unknown_gateway", 404


class SignatureRequired(Refusal):
    """The callback carries no well-formed signature."""

    code, status = "signature_required", 401


class SignatureInvalid(Refusal):
    """The callback's signature does not fit its body: it was forged, altered, or meant for another order."""

    code, status = "signature_invalid", 401


class CallbackStale(Refusal):
    """The callback was signed too long ago, or in the future. Sign it again with the present time."""

    code, status = "callback_stale", 401


class EventReused(Refusal):
    """This payment event was already seen for another order."""

    code, status = "event_reused", 409


class AmountMismatch(Refusal):
    """The amount charged is not the amount of the order. Nothing was delivered; the staff have been alarmed."""

    code, status = "amount_mismatch", 422


class CurrencyMismatch(Refusal):
    """The currency charged is not the currency of the order. Nothing was delivered; the staff have been alarmed."""

    code, status = "currency_mismatch", 422


# --- a store is in the way -----------------------------------------------------------------------------------


class StoreUnknown(Refusal):
    """The store did not answer in time: whether this was done is unknown. Send the same request with the same key."""

    code, status, outcome, retry_after_s = "outcome_unknown", 503, "unknown", 1


class StoreUnavailable(Refusal):
    """The store cannot be reached. Nothing was changed; try again in a second."""

    code, status, retry_after_s = "store_unavailable", 503, 1


class InternalError(Refusal):
    """The server failed to handle the request: whether it was done is unknown. Send it again with the same key."""

    code, status, outcome = "internal_error", 500, "unknown"


# --- the connection is ended, and nobody is there to be answered ---------------------------------------------


class Cut(FlashproofError):
    """The connection was ended without an answer."""

    code = "cut"


class ConnectionSilent(Cut):
    """Nothing was ever sent on the connection."""

    code = "connection_silent"


class AnswerNotTaken(Cut):
    """The client did not read its answer in time."""

    code = "answer_not_taken"


# --- faults: for operators -----------------------------------------------------------------------------------


class Fault(FlashproofError):
    """The deployment is not fit to run."""

    code = "fault"


class BadSetting(Fault):
    """A setting is missing or wrong."""

    code = "bad_setting"


class UnfitStore(Fault):
    """A store is not set up as the shop needs it."""

    code = "unfit_store"


class BadInput(Fault):
    """What was given cannot be used; nothing was changed."""

    code = "bad_input"


def refusals() -> dict[str, type[Refusal]]:
    """Return every refusal by its code (the law the docs, OpenAPI and tests read)."""
    found: dict[str, type[Refusal]] = {}
    todo: list[type[Refusal]] = list(Refusal.__subclasses__())
    while todo:
        kind = todo.pop()
        found[kind.code] = kind
        todo.extend(kind.__subclasses__())
    return dict(sorted(found.items()))
