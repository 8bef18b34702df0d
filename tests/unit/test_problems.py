"""Problem documents: every refusal of the law, as RFC 9457 wants it and as a retrying client needs it."""

from __future__ import annotations

import re

import msgspec
import pytest
from aiohttp import web

from core.errors import InvalidRequest, Overloaded, Refusal, SoldOut, StoreUnknown, TokenRequired, refusals
from core.web.plain import Answers
from core.web.problems import Problem, problem

EVERY = list(refusals().values())


def read(response: web.Response) -> Problem:
    """Decode the body strictly: no field missing, of another type, or unknown."""
    assert isinstance(response.body, bytes)
    assert set(msgspec.json.decode(response.body)) == set(Problem.__struct_fields__)
    return msgspec.json.decode(response.body, type=Problem)


@pytest.mark.parametrize("kind", EVERY)
def test_every_refusal_is_a_problem_document_with_its_own_code(kind: type[Refusal]) -> None:
    """Stops: a body whose status or code is not the one in the status line or in the law."""
    response = problem(kind)
    said = read(response)
    assert response.content_type == "application/problem+json"
    assert (response.status, said.status, said.code) == (kind.status, kind.status, kind.code)
    assert said.type == f"urn:flashproof:{kind.code}"
    assert said.detail == kind.message()


@pytest.mark.parametrize("kind", EVERY)
def test_the_title_is_the_first_sentence_of_the_message(kind: type[Refusal]) -> None:
    """Stops: a title that is empty, or changes from case to case (RFC 9457, 3.1.3)."""
    title = read(problem(kind)).title
    assert title
    assert kind.message().startswith(title + ".")
    assert read(problem(kind("A case of its own. With two sentences."))).title == title


@pytest.mark.parametrize("kind", EVERY)
def test_a_client_can_tell_from_the_headers_whether_and_when_to_retry(kind: type[Refusal]) -> None:
    """Stops: a refusal that changed nothing read as unknown, or a client that hammers a shop that is down."""
    headers = problem(kind).headers
    assert headers.get("X-Outcome") == kind.outcome
    least, most = kind.retry_after_s, kind.retry_after_most_s or kind.retry_after_s
    said = headers.get("Retry-After")
    assert said is None if least is None or most is None else least <= int(str(said)) <= most
    assert ("Retry-After" in headers) == (kind.status in (429, 503))
    assert headers.get("WWW-Authenticate") == ("Bearer" if kind.status == 401 else None)


def test_those_refused_together_are_not_told_to_return_together() -> None:
    """Stops: a flood refused in one second that comes back as the same flood, second after second."""
    told = [problem(Overloaded).headers["Retry-After"] for _ in range(300)]
    prebuilt = [Answers().refused(Overloaded).split(b"Retry-After: ")[1][:1].decode() for _ in range(300)]
    for said in (told, prebuilt):
        assert {word: said.count(word) > 50 for word in sorted(set(said))} == {"1": True, "2": True}


def test_only_a_server_that_failed_may_not_know_the_outcome() -> None:
    """Stops: a 4xx that might have been done, which a client gives up on; or a lost answer that says it was not."""
    assert {kind.code for kind in EVERY if kind.outcome != "not-executed"} == {"outcome_unknown", "internal_error"}
    assert problem(StoreUnknown).headers["X-Outcome"] == "unknown"


def test_no_two_refusals_share_a_code_and_every_code_is_one_plain_word() -> None:
    """Stops: a code copied to a new refusal, so that the older one disappears from the law."""
    kinds, todo = set[type[Refusal]](), list(Refusal.__subclasses__())
    while todo:
        kinds.add(kind := todo.pop())
        todo.extend(kind.__subclasses__())
    assert len(kinds) == len(EVERY)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code) for kind in kinds)
    assert all(400 <= kind.status <= 503 for kind in kinds)


def test_the_detail_of_one_case_is_not_told_to_the_next() -> None:
    """Stops: one buyer's field name in another buyer's answer, out of the bodies that are made once."""
    assert read(problem(InvalidRequest("sku: expected a text."))).detail == "sku: expected a text."
    assert read(problem(InvalidRequest)).detail == InvalidRequest.message()
    assert read(problem(InvalidRequest("quantity: missing."))).detail == "quantity: missing."
    assert read(problem(InvalidRequest())).detail == InvalidRequest.message()


def test_a_response_is_made_anew_for_every_request() -> None:
    """Stops: aiohttp sending one response object to two buyers, and headers of the first left in it."""
    first = problem(SoldOut)
    first.headers["X-Mine"] = "1"
    second = problem(SoldOut)
    assert second is not first
    assert "X-Mine" not in second.headers
    assert second.body == first.body


@pytest.mark.parametrize("detail", ['a "quoted" field', "back\\slash", "two\r\nlines", "\x00\x1f", "数量无效", "🎫"])
def test_any_text_in_a_detail_stays_inside_it(detail: str) -> None:
    """Stops: a body put together by hand, broken or steered by what a buyer wrote."""
    response = problem(InvalidRequest(detail))
    assert read(response).detail == detail
    assert all(detail not in value for value in response.headers.values())


def test_a_refusal_of_a_token_names_the_scheme() -> None:
    """Stops: a 401 without a challenge, which RFC 9110 (11.6.1) forbids."""
    assert problem(TokenRequired).status == 401
    assert problem(TokenRequired).headers["WWW-Authenticate"] == "Bearer"
