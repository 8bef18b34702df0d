"""Refusals as HTTP: RFC 9457 problem documents with a stable ``code``."""

from __future__ import annotations

from random import random

import msgspec
from aiohttp import web

from core.errors import Overloaded, Refusal


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


def problem_headers(refusal: Refusal | type[Refusal], again_s: int | None = None) -> dict[str, str]:
    """Return the header fields that go with a refusal; ``again_s`` is its Retry-After if that was drawn already."""
    headers: dict[str, str] = {}
    if refusal.outcome is not None:
        headers["X-Outcome"] = refusal.outcome
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(again_s or retry_after_s(refusal))
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def retry_after_s(refusal: Refusal | type[Refusal]) -> int | None:
    """Return after how many seconds to come back, drawn anew for each answer where the refusal gives a range.

    Clients refused together would return together, as one flood after the other (AWS Architecture Blog, "Exponential
    backoff and jitter").
    """
    if isinstance(refusal, Overloaded) and refusal.again_s is not None:
        return refusal.again_s
    least, most = refusal.retry_after_s, refusal.retry_after_most_s
    if least is None or most is None:
        return least
    return least + int(random() * (most - least + 1))  # nobody gains by guessing it


def _body(kind: type[Refusal], detail: str) -> bytes:
    said = Problem(
        type=f"urn:flashproof:{kind.code}",
        title=kind.message().split(". ")[0].rstrip("."),
        status=kind.status,
        code=kind.code,
        detail=detail,
    )
    return msgspec.json.encode(said)
