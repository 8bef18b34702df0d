"""The log: one JSON object a line, whatever it is given, and never a card key."""

from __future__ import annotations

import copy
import enum
import json
import pickle
import traceback
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from core import telemetry
from core.errors import BadInput, StoreUnknown
from core.sale.delivery.vault import VaultLocked
from core.telemetry import Secret, log, set_level

KEY = "GIFT-0001----pässword"


class Odd:
    """An object that shows the key in every way an object can."""

    code = "odd"

    def __repr__(self) -> str:
        return KEY

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return KEY


class Number(int):
    """A number that prints as the key."""

    __repr__ = __str__ = lambda self: KEY


class Foreign(Exception):
    """A library's error that looks like one of ours but for its home."""

    code = "foreign"


class Colour(enum.IntEnum):
    RED = 1


@pytest.fixture(autouse=True)
def _info() -> Iterator[None]:
    yield
    set_level("info")


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Return a function that logs fields and returns the line, read back."""

    def write(**fields: Any) -> dict[str, Any]:
        log("info", "tested", **fields)
        line = capsys.readouterr().err
        assert line.endswith("\n")
        assert line.count("\n") == 1
        assert KEY not in line
        assert json.dumps(KEY)[1:-1] not in line
        assert "GIFT" not in line
        found: dict[str, Any] = json.loads(line)
        return found

    return write


@pytest.mark.parametrize(
    "odd",
    [
        Secret(KEY),
        [KEY],
        (KEY,),
        {KEY: KEY},
        {"key": Secret(KEY)},
        KEY.encode(),
        bytearray(KEY.encode()),
        Odd(),
        Odd,
        Number(7),
        Decimal("1.5"),
        lambda: KEY,
        BaseException(KEY),
        KeyboardInterrupt(KEY),
        BaseExceptionGroup(KEY, [KeyboardInterrupt(KEY)]),
    ],
    ids=lambda odd: type(odd).__name__,
)
def test_what_is_no_plain_word_or_number_is_written_as_stars(odd: object, logged: Callable[..., Any]) -> None:
    """Stops: a row, a request or a wrapped key written out because something logged "just to see"."""
    assert logged(field=odd)["field"] == "***"


@pytest.mark.parametrize(
    "error",
    [
        ValueError(KEY),
        KeyError(KEY),
        UnicodeDecodeError("utf-8", KEY.encode(), 0, 1, KEY),
        OSError(5, KEY, KEY),
        Foreign(KEY),
        ExceptionGroup(KEY, [ValueError(KEY)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_that_is_not_ours_shows_only_its_name(error: Exception, logged: Callable[..., Any]) -> None:
    """Stops: a library's message that quotes the row it failed on."""
    assert logged(error=error)["error"] == type(error).__name__


def test_an_exception_of_ours_shows_its_message_even_when_a_key_was_the_cause(logged: Callable[..., Any]) -> None:
    """Stops: an alarm that says nothing; a cause or a note that says too much."""
    error = BadInput("line 3: longer than 1,024 bytes")
    error.__cause__ = ValueError(KEY)
    error.add_note(KEY)
    assert logged(error=error)["error"] == "BadInput: line 3: longer than 1,024 bytes"
    assert "did not answer" in logged(error=StoreUnknown())["error"]


def test_a_secret_has_no_form_but_stars_and_opens_by_one_word() -> None:
    """Stops: any of Python's many ways to turn an object into text doing so with a card key."""
    secret = Secret(KEY)
    forms = [str(secret), repr(secret), f"{secret}", f"{secret!r:>20}", f"{secret:>30}"]
    forms.append("%s" % secret)  # noqa: UP031
    assert all("***" in form for form in forms)
    assert all("GIFT" not in form for form in forms)
    assert "GIFT" not in str([secret, {"a": secret}])
    assert "GIFT" not in str(VaultLocked(f"{secret}"))
    assert secret.reveal() == KEY
    assert secret != KEY
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize(
    "write", [pickle.dumps, copy.deepcopy, json.dumps, msgspec.json.encode, msgspec.msgpack.encode]
)
def test_a_secret_is_not_serialised(write: Callable[[object], object]) -> None:
    """Stops: a key that reaches a cache, a fact or an answer inside something larger."""
    with pytest.raises(TypeError):
        write({"key": Secret(KEY)})


def test_a_traceback_with_its_locals_shows_no_key() -> None:
    """Stops: an error reporter that prints the variables of every frame."""

    def fail(card_key: Secret) -> None:
        raise ValueError(f"cannot use {card_key}")

    try:
        fail(Secret(KEY))
    except ValueError as error:
        frames = traceback.TracebackException.from_exception(error, capture_locals=True)
        frames.stack[0].locals = None  # this test's own frame
        text = "".join(frames.format())
    assert "card_key = ***" in text
    assert "GIFT" not in text


def test_plain_words_and_numbers_are_written_as_they_are(logged: Callable[..., Any]) -> None:
    """Stops: a log that hides what an operator needs."""
    line = logged(order="ab" * 16, units=3, lag=0.25, late=True, nothing=None, word="é")
    assert line["event"] == "tested"
    assert line["level"] == "info"
    assert [line[name] for name in ("order", "units", "lag", "late", "nothing", "word")] == [
        "ab" * 16, 3, 0.25, True, None, "é"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "odd", ["\ud800", "line\nbreak", "\x00\x1b[31m", "x" * 100_000, float("nan"), 2**80, Colour.RED]
)
def test_no_value_breaks_the_line_or_the_caller(odd: object, logged: Callable[..., Any]) -> None:
    """Stops: an error path that dies of its own log line; two lines forged out of one; a line without an end."""
    assert len(json.dumps(logged(field=odd))) < 2_500


def test_a_level_below_the_wanted_one_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """Stops: a hot path that writes debug lines in production, or an error that is not written."""
    set_level("error")
    log("warning", "quiet")
    log("error", "loud")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["loud"]
    assert set(telemetry._LEVELS) == {"debug", "info", "warning", "error"}
