"""The common arrival without a greenlet: the loop itself sends its order, and settles the answer that ends its story.

In a flash sale nearly every arrival asks once and is told no. A greenlet for it, with the whole of ``buyer.play`` on
its stack and two switches, costs more than the rest of what is done for it. So the order is sent where the arrival is
found due, and a whole reply that refuses for good, and that the shop sends byte for byte alike, is written down
where it is read. Everything else is handed to a greenlet as it stands, with the reply in hand or still to come, and
goes the way of all other arrivals: accepted orders, retries, second clicks, timeouts, replies in pieces.

What is recorded is the same either way; a test plays the same plan both ways and compares.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from loadtests.generator.attempts import first_attempt
from loadtests.generator.buyer import PLACE_TIMEOUT_S, World, comes_back, is_definite_no, play
from loadtests.generator.client import Client
from loadtests.generator.connection import Connection
from loadtests.generator.contract import Reply
from loadtests.generator.crew import Crew
from loadtests.generator.http1 import whole
from loadtests.generator.plan import Plan
from loadtests.record.counted import histogram_of, outcome_of
from loadtests.targets import Answer

_SAID_MOST: Final = 256  # refusals remembered; a shop's are a few, made anew when its Date changes


class Refused(NamedTuple):
    """A refusal for good, as it is written down."""

    status: int
    answer: Answer
    name: str  # its histogram
    outcome: str  # the word its arrival is counted under
    length: int  # bytes of the body

    # All of it follows from the reply's bytes: an adapter reads nothing else.


class Swift:
    """Arrivals whose orders were sent without a greenlet."""

    def __init__(self, world: World, client: Client, crew: Crew) -> None:
        """Take what the buyers act through, the client of their quick calls, and who runs greenlets."""
        self.world, self.client, self.crew = world, client, crew
        self.under_way = 0  # arrivals whose story has not ended, with or without a greenlet
        self.waiting: set[_Asked] = set()  # those without
        self.said: dict[bytes, Refused] = {}

    def send(self, plan: Plan, due_us: int) -> int:
        """Send an arrival's order now and return when that was; 0: nothing was sent, it takes a greenlet."""
        if plan.looks or plan.again == "at_once" or not self.client.is_ready:
            return 0
        world = self.world
        try:
            raw = world.target.place(plan.idempotency_key, plan.sku, plan.buyer, plan.quantity)
        except Exception:  # noqa: BLE001  # an adapter's; it raises again where that is counted
            return 0
        asked = _Asked(self, plan, due_us)
        self.waiting.add(asked)
        self.under_way += 1
        if not self.client.send_now(raw, PLACE_TIMEOUT_S, asked):
            self.waiting.discard(asked)
            self.under_way -= 1
        elif plan.retries == "budget":
            world.budget.deposit()
        return asked.sent_us

    def hand_over(self) -> None:
        """Have greenlets go on with all that are under way."""
        for asked in list(self.waiting):
            self.waiting.discard(asked)
            asked.connection.waiting = None  # a reply that comes before the greenlet has begun is the greenlet's
            self.crew.start(asked.go_on, b"")

    def refused(self, plan: Plan, data: bytes) -> Refused | None:
        """Return what a whole reply to an arrival's order refuses for good; None: it is not that, or not whole."""
        found = whole(data)
        if found is None or not found[3] or found[0] < 400:
            return None
        status, headers, body, _ = found
        answer = self.world.target.read("place", Reply(0, 0, "", status, headers, body))
        if not is_definite_no(answer.result, status):
            return None
        attempt = first_attempt(plan, 0, 1, 1, None, status, answer)
        said = Refused(status, answer, histogram_of(attempt), outcome_of(attempt), len(body))
        if len(self.said) >= _SAID_MOST:
            self.said.clear()
        self.said[data] = said
        return said


class _Asked:
    """One arrival's order under way: waits for the reply of its connection, see ``connection.Taker``."""

    __slots__ = ("connection", "due_us", "plan", "sent_us", "swift")

    connection: Connection

    def __init__(self, swift: Swift, plan: Plan, due_us: int) -> None:
        self.swift, self.plan, self.due_us, self.sent_us = swift, plan, due_us, 0

    def switch(self) -> None:
        swift, plan, connection = self.swift, self.plan, self.connection
        try:
            said = swift.said.get(connection.data) or swift.refused(plan, connection.data)
            if said is None or plan.again or comes_back(plan, said.answer.outcome) or not swift.client.take(connection):
                self.hand_over(b"")
                return
        except Exception:  # noqa: BLE001  # an adapter's; it raises again in the greenlet, where that is counted
            self.hand_over(b"")
            return
        swift.waiting.discard(self)
        swift.under_way -= 1
        recorder = swift.world.recorder
        recorder.first(said.outcome)
        attempt = first_attempt(
            plan, self.due_us, self.sent_us, connection.read_us, connection.late_us, said.status, said.answer
        )
        recorder.note(attempt, said.name, -1, said.length)

    def throw(self, error: Exception) -> None:
        self.hand_over(b"")
        waiting: Any = self.connection.waiting
        if waiting is not None and waiting is not self:
            waiting.throw(error)

    def hand_over(self, rest: bytes) -> None:
        self.swift.waiting.discard(self)
        self.swift.crew.begin(self.go_on, rest)

    def go_on(self, rest: bytes) -> None:
        """Play the rest of the story. In a greenlet."""
        swift = self.swift
        try:
            play(swift.world, self.plan, self.due_us, swift.client.go_on(self.connection, rest, self.sent_us))
        finally:
            swift.under_way -= 1
