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


def problem(refusal: Refusal | type[Refusal]) -> web.Response:
    """Return the response of a refusal. A class stands for its general message."""
    kind = refusal if isinstance(refusal, type) else type(refusal)
    headers: dict[str, str] = {}
    if kind.outcome is not None:
        headers["X-Outcome"] = kind.outcome
    if kind.retry_after_s is not None:
        headers["Retry-After"] = str(kind.retry_after_s)
    if kind.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = Problem(
        type=f"urn:flashproof:{kind.code}",
        title=kind.message().split(". ")[0].rstrip("."),
        status=kind.status,
        code=kind.code,
        detail=kind.message() if isinstance(refusal, type) else str(refusal),
    )
    return web.Response(
        body=msgspec.json.encode(body),
        status=kind.status,
        headers=headers,
        content_type="application/problem+json",
    )
