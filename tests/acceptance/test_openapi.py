"""The OpenAPI document and the shop say the same. (Every answer of every acceptance test is held against it, too.)"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from core.errors import refusals
from core.settings import PAGE_MOST, WAIT_MOST_S
from core.web.app import Shop as Web
from core.web.openapi import document

if TYPE_CHECKING:
    from conftest import Answer, Described, Shop

# What any address may answer before a route is found or after all else failed.
GENERIC = {"not_found", "method_not_allowed", "malformed_request", "internal_error"}
GENERIC |= {"head_timeout", "head_too_large", "too_many_connections"}


@pytest.fixture(scope="module")
def described(shop: Shop) -> Described:
    """The document as buyers get it, with the check of answers."""
    return shop.described


def operations(described: Described) -> dict[tuple[str, str], dict[str, Any]]:
    """Return every operation by method and path."""
    return {
        (method.upper(), path): operation
        for path, methods in described.document["paths"].items()
        for method, operation in methods.items()
    }


def codes(described: Described) -> set[tuple[int, str]]:
    """Return every (status, refusal code) promised anywhere."""
    found: set[tuple[int, str]] = set()
    for operation in operations(described).values():
        for status, response in operation["responses"].items():
            problem = response["content"].get("application/problem+json")
            for part in problem["schema"]["allOf"] if problem else ():
                found |= {(int(status), code) for code in part.get("properties", {}).get("code", {}).get("enum", ())}
    return found


def test_the_document_served_is_the_one_written_from_the_code(shop: Shop) -> None:
    """Stops: a document of last month beside the code of today."""
    answer = shop.ask("GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == document()
    assert answer.json["openapi"].startswith("3.1.")


def test_every_route_is_described_and_nothing_else(described: Described) -> None:
    """Stops: a call that exists and is not told, and one that is told and gone."""
    nothing = cast(Any, None)
    web = Web(
        placing=nothing,
        paying=nothing,
        cancelling=nothing,
        tracking=nothing,
        browsing=nothing,
        gateways={},
        clock=nothing,
    )
    routes = {(one.method, one.resource.canonical) for one in web.application().router.routes() if one.resource}
    assert routes == set(operations(described))


def test_every_refusal_is_promised_with_its_status_and_every_promise_is_a_refusal(described: Described) -> None:
    """Stops: a code no client was told of, and a code that no code gives."""
    known = {(kind.status, code) for code, kind in refusals().items()}
    assert codes(described) <= known
    assert known - codes(described) <= {(kind.status, code) for code, kind in refusals().items() if code in GENERIC}


def test_the_document_holds_together(described: Described) -> None:
    """Stops: references to nothing, path parameters nobody explains, two operations of one name."""
    text = msgspec.json.encode(described.document).decode()
    assert set(re.findall(r'"#/components/schemas/(\w+)"', text)) == set(described.document["components"]["schemas"])
    names = [operation["operationId"] for operation in operations(described).values()]
    assert len(names) == len(set(names))
    for (_, path), operation in operations(described).items():
        explained = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert explained == set(re.findall(r"{(\w+)}", path))


def test_the_document_states_the_limits_of_the_code(described: Described) -> None:
    """Stops: a client that keeps to the document and is refused."""
    limits = {
        (path, one["name"]): one["schema"].get("maximum")
        for (_, path), operation in operations(described).items()
        for one in operation["parameters"]
    }
    assert limits["/v1/products", "limit"] == PAGE_MOST
    assert limits["/v1/orders/{id}", "wait"] == WAIT_MOST_S
    order = described.document["components"]["schemas"]["PlaceRequest"]
    assert order["additionalProperties"] is False
    assert set(order["required"]) == {"sku", "buyer", "quantity"}


def test_the_answers_of_a_whole_purchase_are_as_described(shop: Shop, described: Described) -> None:
    """Stops: a field renamed in the code alone. `ask` checks each answer; here all of a life are seen."""
    order = shop.placed("plain", buyer="dora", key="described")
    seen = {"placed": shop.place("plain", buyer="dora", key="described"), "reserved": shop.track(order)}
    seen["paid"] = shop.pay(order)
    shop.delivered(order)
    seen["delivered"] = shop.track(order)
    seen["products"] = shop.ask("GET", "/v1/products")
    seen["product"] = shop.ask("GET", "/v1/products/plain")
    assert {answer.status for answer in seen.values()} == {200}
    assert described.faults(seen["delivered"].json["keys"], {"type": "array", "items": {"type": "string"}}) == []
    said = msgspec.json.decode(shop.payment(order))
    assert described.faults(said, {"$ref": "#/components/schemas/Callback"}) == []


@pytest.mark.parametrize(
    ("method", "path", "status", "media", "body"),
    [
        ("GET", "/v1/products", 200, "application/json", {"products": []}),
        ("GET", "/v1/products", 200, "application/json", {"products": [], "next": 5}),
        ("GET", "/v1/products", 200, "application/json", {"products": [], "next": None, "more": 1}),
        ("GET", "/v1/products", 200, "application/json", {"products": [{"sku": "a"}], "next": None}),
        ("GET", "/v1/products", 200, "text/html", {"products": [], "next": None}),
        ("GET", "/v1/products", 204, "application/json", {"products": [], "next": None}),
        ("GET", "/v1/nothing", 200, "application/json", {}),
        ("DELETE", "/v1/products", 200, "application/json", {}),
        ("GET", "/v1/products", 409, "application/problem+json", "sold_out"),
        ("POST", "/v1/orders", 409, "application/problem+json", "not_cancellable"),
        ("POST", "/v1/orders", 409, "application/problem+json", 7),
    ],
    ids=str,
)
def test_the_check_finds_what_was_not_promised(
    shop: Shop, described: Described, method: str, path: str, status: int, media: str, body: object
) -> None:
    """Stops: a check that passes everything."""
    if not isinstance(body, dict):
        body = {"type": "urn", "title": "t", "status": status, "code": body, "detail": "d"}
    like: Answer = shop.ask("GET", "/v1/products")
    answer = like._replace(status=status, headers={"content-type": media}, body=msgspec.json.encode(body))
    with pytest.raises(AssertionError):
        described.check(method, path, answer)
    described.check("GET", "/v1/products", like)
