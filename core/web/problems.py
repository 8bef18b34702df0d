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
    return web.Response(
        body=problem_body(refusal),
        status=refusal.status,
        headers=problem_headers(refusal),
        content_type="application/problem+json",
    )


def problem_body(refusal: Refusal | type[Refusal]) -> bytes:
    """Return the problem document of a refusal."""
    if isinstance(refusal, type):
        return _general.get(refusal) or _general.setdefault(refusal, _body(refusal, refusal.message()))
    return _body(type(refusal), str(refusal))


def problem_headers(refusal: Refusal | type[Refusal]) -> dict[str, str]:
    """Return the header fields that go with a refusal."""
    headers: dict[str, str] = {}
    if refusal.outcome is not None:
        headers["X-Outcome"] = refusal.outcome
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def _body(kind: type[Refusal], detail: str) -> bytes:
    said = Problem(
        type=f"urn:flashproof:{kind.code}",
        title=kind.message().split(". ")[0].rstrip("."),
        status=kind.status,
        code=kind.code,
        detail=detail,
    )
    return msgspec.json.encode(said)
