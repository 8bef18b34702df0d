"""Refusals as HTTP: RFC 9457 problem documents with a stable ``code``."""

from __future__ import annotations

import msgspec
from aiohttp import web

from core.errors import Refusal


class Problem(msgspec.Struct, frozen=True):
    """The body of every refusal. ``type`` is a URN made of the code; nothing needs to be fetched."""

    type: str
    title: str
    status: int
    code: str
    detail: str


_general: dict[type[Refusal], bytes] = {}  # the bodies of refusals without a detail of their own, made once


def problem(refusal: Refusal | type[Refusal]) -> web.Response:
    """Return the response of a refusal. A class stands for its general message."""
    if isinstance(refusal, type):
        kind = refusal
        body = _general.get(kind) or _general.setdefault(kind, _body(kind, kind.message()))
    else:
        kind = type(refusal)
        body = _body(kind, str(refusal))
    return web.Response(body=body, status=kind.status, headers=_headers(kind), content_type="application/problem+json")


def _body(kind: type[Refusal], detail: str) -> bytes:
    said = Problem(
        type=f"urn:flashproof:{kind.code}",
        title=kind.message().split(". ")[0].rstrip("."),
        status=kind.status,
        code=kind.code,
        detail=detail,
    )
    return msgspec.json.encode(said)


def _headers(kind: type[Refusal]) -> dict[str, str]:
    headers: dict[str, str] = {}
    if kind.outcome is not None:
        headers["X-Outcome"] = kind.outcome
    if kind.retry_after_s is not None:
        headers["Retry-After"] = str(kind.retry_after_s)
    if kind.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
