"""After the sale: ask every open question again, so that as little as possible stays *unknown*.

Open are places whose key never got an order and whose word was unknown once, charges whose callback was never
answered for good, and orders whose buyer was cut off while waiting for the key. Each is asked with the same
idempotency key or event as before; that is what those are for. The answers go to the end of ``history.jsonl``
with the reason ``resolve``. Plain sockets, one request at a time, bounded in tries and in time; no gevent.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec

from core.ids import Names
from loadtests.generator import contract
from loadtests.generator.attempts import Payer, place_attempt, state_attempt
from loadtests.generator.contract import Placed, Reply
from loadtests.generator.gateway import Gateway, is_definite
from loadtests.generator.http1 import MalformedReplyError, OversizeReplyError, ReplyReader
from loadtests.record.history import Attempt, Charge, read, read_charges
from loadtests.targets import Target, load

TRIES_MOST: Final = 5
TIMEOUT_S: Final = 5.0
SECONDS_MOST: Final = 60.0
PAUSE_S: Final = 0.3
_UNSETTLED: Final = frozenset({"reserved", "paid"})  # a key may still come, or the reservation still ends


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """How many questions were open, and how many of them still are."""

    places: int
    charges: int
    tracks: int
    left_open: int


class Questions(msgspec.Struct, frozen=True):
    """The open questions of one history."""

    places: list[Attempt]  # the unknown attempts, one a key
    charges: list[tuple[Charge, Payer]]
    tracks: list[Attempt]  # the place attempts of the orders whose state is asked


class ResumedClock:
    """The run's clock, taken up again in another process by the wall clock."""

    def __init__(self, started_unix_us: int) -> None:
        self.started_unix_us = started_unix_us

    def now_us(self) -> int:
        """Return microseconds since the run's start."""
        return time.time_ns() // 1000 - self.started_unix_us


class ShopConnection:
    """The way to the shop: one connection, made anew whenever it is no longer good."""

    def __init__(self, base_url: str, clock: ResumedClock, timeout_s: float) -> None:
        url = urlsplit(base_url)
        if url.scheme != "http" or not url.hostname:
            raise ValueError(f"the shop's address must look like http://127.0.0.1:8080, not {base_url!r}")
        self._address, self._clock, self._timeout_s = (url.hostname, url.port or 80), clock, timeout_s
        self._sock: socket.socket | None = None
        self.authority = f"{url.hostname}:{url.port or 80}"

    def ask(self, raw: bytes, _timeout_s: float = 0.0) -> Reply:
        """Send one request; never twice, whatever happens to it."""
        now_us = self._clock.now_us
        try:
            if self._sock is None:
                self._sock = socket.create_connection(self._address, self._timeout_s)
        except OSError:
            return Reply(0, now_us(), contract.REFUSED)
        reader, error, sent_us = ReplyReader(), "", now_us()
        try:
            self._sock.sendall(raw)
            while True:
                data = self._sock.recv(65_536)
                if not data and not reader.end():
                    error = contract.CLOSED
                if not data or reader.feed(data):
                    break
        except TimeoutError:
            error = contract.TIMEOUT
        except (MalformedReplyError, OversizeReplyError):
            error = contract.MALFORMED
        except OSError:
            error = contract.RESET
        if error or not reader.keep:
            self.close()
        if error:
            return Reply(sent_us, now_us(), error)
        return Reply(sent_us, now_us(), "", reader.status, reader.headers, reader.body)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class _Book:
    """Appends to the history."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._encoder = msgspec.json.Encoder()
        self.last: Attempt | None = None

    def note(self, attempt: Attempt, name: str = "", from_us: int = -1, length: int = 0) -> None:
        self._file.write(self._encoder.encode(attempt) + b"\n")
        self.last = attempt

    def charge(self, charge: Charge) -> None:
        raise AssertionError("resolving takes no money")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def resolve(
    out_dir: Path,
    base_url: str,
    *,
    names_secret: bytes,
    sandbox_secret: bytes,
    adapter: str = "core",
    tries: int = TRIES_MOST,
    timeout_s: float = TIMEOUT_S,
    seconds_most: float = SECONDS_MOST,
) -> Resolved:
    """Ask every open question of a run again and append the answers to its history.

    Args:
        out_dir: the run's directory with history.jsonl, charges.jsonl and generator.json.
        base_url: the shop, e.g. http://127.0.0.1:8080.
        names_secret: the deployment's secret, to hash the keys shown.
        sandbox_secret: signs the callbacks.
        adapter: how the shop is spoken to, see ``loadtests.targets.load``.
        tries: how often one question is asked at most.
        timeout_s: how long one answer may take.
        seconds_most: how long all of it may take; what is left then stays open.

    Raises:
        OSError, ValueError: a file is missing or broken.
    """
    started = msgspec.json.decode((out_dir / "generator.json").read_bytes())["started_unix_us"]
    clock = ResumedClock(int(started))
    shop = ShopConnection(base_url, clock, timeout_s)
    ends = time.monotonic() + seconds_most
    with _Book(out_dir / "history.jsonl") as book:
        questions = open_questions(list(read(out_dir / "history.jsonl")), list(read_charges(out_dir / "charges.jsonl")))
        target = load(adapter, shop.authority, sandbox_secret)
        session = _Session(shop, book, clock, Names(names_secret), target)
        asks: list[Callable[[], bool]] = [partial(session.place, one) for one in questions.places]
        asks += [partial(session.charge, charge, payer) for charge, payer in questions.charges]
        asks += [partial(session.track, one) for one in questions.tracks]
        answered = sum(_ask_until_definite(ask, tries, ends) for ask in asks)
    shop.close()
    return Resolved(
        places=len(questions.places),
        charges=len(questions.charges),
        tracks=len(questions.tracks),
        left_open=len(asks) - answered,
    )


def _ask_until_definite(ask: Callable[[], bool], tries: int, ends: float) -> bool:
    for tried in range(1, tries + 1):
        if time.monotonic() > ends:
            return False
        if ask():
            return True
        if tried < tries:
            time.sleep(PAUSE_S * tried)
    return False


class _Session:
    """Asks one question at a time; each method returns whether the answer is definite."""

    def __init__(self, shop: ShopConnection, book: _Book, clock: ResumedClock, names: Names, target: Target) -> None:
        self._shop, self._book, self._clock, self._names, self._target = shop, book, clock, names, target
        self._gateway = Gateway(target, shop.ask, book, clock, lambda us: time.sleep(us / 1e6))

    def place(self, asked: Attempt) -> bool:
        """Send a place request again."""
        return self._place(asked)[0]

    def charge(self, charge: Charge, payer: Payer) -> bool:
        """Send a callback again, signed anew."""
        self._gateway.notify(charge, payer, "resolve", self._clock.now_us())
        return self._book.last is not None and is_definite(self._book.last)

    def track(self, asked: Attempt) -> bool:
        """Get the order's token by placing it again, then look at the order."""
        definite, placed = self._place(asked)
        if placed is None:
            return definite
        due_us = self._clock.now_us()
        reply = self._shop.ask(self._target.track(placed.order_id, placed.token, 0))
        attempt = state_attempt(self._target, "track", "resolve", reply, asked, placed, due_us, self._names)
        self._book.note(attempt)
        return attempt.result == "ok" and attempt.outcome not in _UNSETTLED

    def _place(self, asked: Attempt) -> tuple[bool, Placed | None]:
        due_us = self._clock.now_us()
        raw = self._target.place(asked.idempotency_key, asked.sku, asked.buyer, asked.quantity)
        attempt, placed = place_attempt(
            self._target,
            self._shop.ask(raw),
            arrival=asked.arrival,
            why="resolve",
            buyer=asked.buyer,
            sku=asked.sku,
            quantity=asked.quantity,
            idempotency_key=asked.idempotency_key,
            intended_us=due_us,
            group=asked.group,
        )
        self._book.note(attempt)
        return attempt.result == "ok" or _is_refusal(attempt), placed


def _is_refusal(place: Attempt) -> bool:
    return place.result == "fail" and 400 <= place.status < 500 and place.status != 429


def open_questions(attempts: list[Attempt], charges: list[Charge]) -> Questions:
    """Return what a history leaves open."""
    unknown: dict[tuple[str, str], Attempt] = {}
    known: dict[str, Attempt] = {}  # order id -> the place attempt that was answered with it
    settled_keys: set[tuple[str, str]] = set()
    told: set[str] = set()
    last_look: dict[str, Attempt] = {}
    shown: set[str] = set()
    for attempt in attempts:
        if attempt.op == "place":
            key = (attempt.buyer, attempt.idempotency_key)
            if attempt.result == "unknown":
                unknown.setdefault(key, attempt)
            elif attempt.result == "ok":
                settled_keys.add(key)
                known.setdefault(attempt.order_id, attempt)
            elif attempt.why == "resolve" and _is_refusal(attempt):
                # A refusal answers only after the sale: during it, the unknown one may still have been on its way.
                settled_keys.add(key)
        elif attempt.op == "pay" and is_definite(attempt):
            told.add(attempt.event_id)
        elif attempt.op == "track":
            if attempt.keys:
                shown.add(attempt.order_id)
            earlier = last_look.get(attempt.order_id)
            if earlier is None or earlier.done_us <= attempt.done_us:
                last_look[attempt.order_id] = attempt
    return Questions(
        [attempt for key, attempt in unknown.items() if key not in settled_keys],
        [(charge, _payer(known.get(charge.order_id))) for charge in charges if charge.event_id not in told],
        [
            known[order_id]
            for order_id, look in last_look.items()
            if look.result in ("unknown", "unsent") and order_id in known and order_id not in shown
        ],
    )


def _payer(place: Attempt | None) -> Payer:
    return Payer(place.arrival, place.buyer, place.sku, place.quantity) if place else Payer(-1, "", "", 0)
