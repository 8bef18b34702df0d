"""OpenAPI 3.1, written from the route table and the very structs that decode and encode."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from core import __version__
from core.errors import InternalError, Refusal
from core.web.problems import Problem
from core.web.routes import ROUTES, Route

_REF = "#/components/schemas/{name}"


@cache
def document() -> bytes:
    """Return the document as JSON bytes."""
    structs = {struct for route in ROUTES for struct in (route.body, *route.answers.values()) if struct is not None}
    structs.add(Problem)
    ordered = sorted(structs, key=lambda struct: struct.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return msgspec.json.format(
        msgspec.json.encode(
            {
                "openapi": "3.1.0",
                "info": {
                    "title": "Flashproof",
                    "version": __version__,
                    "description": "Orders and deliveries of unique card keys. Every refusal is a problem document "
                    "(RFC 9457) with a stable code; X-Outcome says whether anything was changed.",
                    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                },
                "paths": paths,
                "components": {"schemas": components},
            }
        )
    )


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler,
        "summary": route.summary,
        "parameters": [
            {
                "name": p.name,
                "in": p.where,
                "required": p.required,
                "schema": p.schema,
                "description": p.meaning,
            }
            for p in route.parameters
        ],
        "responses": _responses(route),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(route.body)}},
        }
    return operation


def _responses(route: Route) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, struct in route.answers.items():
        answer: dict[str, Any] = {"schema": _ref(struct) if struct is not None else {"type": "object"}}
        responses[str(status)] = {"description": "done", "content": {"application/json": answer}}
    by_status: dict[int, list[type[Refusal]]] = {}
    for refusal in _refusals(route):
        by_status.setdefault(refusal.status, []).append(refusal)
    for status, refusals in sorted(by_status.items()):
        codes = [refusal.code for refusal in refusals]
        schema: dict[str, Any] = {"allOf": [_ref(Problem), {"properties": {"code": {"enum": codes}}}]}
        responses[str(status)] = {
            "description": "; ".join(f"{refusal.code}: {refusal.message()}" for refusal in refusals),
            "content": {"application/problem+json": {"schema": schema}},
        }
    return responses


def _refusals(route: Route) -> tuple[type[Refusal], ...]:
    return (*route.refusals, InternalError)


def _ref(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REF.format(name=struct.__name__)}
