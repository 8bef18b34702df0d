"""Arrivals that the loop itself plays are told exactly as those that a greenlet plays."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from gevent.monkey import get_original

from core.clock import iso8601
from core.ids import Names
from loadtests.generator import buyer, contract, swift
from loadtests.generator.buyer import World, play
from loadtests.generator.client import Client
from loadtests.generator.clock import Clock
from loadtests.generator.crew import Crew
from loadtests.generator.gateway import Gateway
from loadtests.generator.http1 import ReplyReader
from loadtests.generator.manners import Manners
from loadtests.generator.plan import Crowd, Plan
from loadtests.generator.recorder import Recorder
from loadtests.generator.retry_budget import RetryBudget
from loadtests.generator.swift import Swift
from loadtests.record.history import Attempt, read
from loadtests.targets.core import Core
from tests.harness.test_client import Server, reset

TIMEOUT_S = 0.3
_stand_still = get_original("time", "sleep")
STORY_S = 10.0
CROWD = 400  # more greenlets than gevent begins between two looks at its sockets


def reply(status: int, body: Any, *heads: str) -> bytes:
    raw = msgspec.json.encode(body)
    head = "".join(f"{head}\r\n" for head in heads)
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(raw)}\r\n{head}\r\n".encode() + raw


def refusal(status: int, code: str, *heads: str) -> bytes:
    return reply(status, {"code": code}, "X-Outcome: not-executed", *heads)


SOLD_OUT = refusal(409, "sold_out")
ACCEPTED = reply(
    201,
    {"order_id": "0" * 31 + "1", "token": "t", "state": "reserved", "sku": "hot", "quantity": 1, "amount": 1999}
    | {"currency": "CNY", "pay_by": iso8601(1_900_000_000_000)},
)
Answer = bytes | list[bytes] | Callable[[socket.socket], None]


def silent(_: socket.socket) -> None:
    time.sleep(3 * TIMEOUT_S)


SCRIPTS: dict[str, tuple[list[Answer], dict[str, Any]]] = {
    "sold out": ([SOLD_OUT], {}),
    "sold out to one who clicks again": ([SOLD_OUT, SOLD_OUT], {"again": "after"}),
    "sold out to one who comes back": ([SOLD_OUT, ACCEPTED], {"come_back_us": 20_000}),
    "beyond the limit": ([refusal(409, "limit_reached")], {"why": "over_limit"}),
    "a refusal that ends the connection": ([refusal(409, "sold_out", "Connection: close")], {}),
    "a refusal with no code": ([b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"], {}),
    "a refusal in pieces": ([[SOLD_OUT[:20], SOLD_OUT[20:60], SOLD_OUT[60:]]], {}),
    "bytes behind the refusal": ([SOLD_OUT + b"more"], {}),
    "accepted": ([ACCEPTED], {}),
    "accepted in pieces": ([[ACCEPTED[:90], ACCEPTED[90:]]], {}),
    "overloaded at first": ([refusal(503, "overloaded", "Retry-After: 0"), SOLD_OUT], {}),
    "overloaded, with a retry budget": ([refusal(503, "overloaded"), SOLD_OUT], {"retries": "budget"}),
    "sold out, with a retry budget": ([SOLD_OUT], {"retries": "budget"}),
    "a fault, unknown": ([reply(500, {"code": "internal"}), SOLD_OUT], {}),
    "no HTTP": ([b"SSH-2.0\r\n\r\n", SOLD_OUT], {}),
    "closed": ([socket.socket.close, SOLD_OUT], {}),
    "reset": ([reset, SOLD_OUT], {}),
    "silence": ([silent, SOLD_OUT], {}),
}


class Told:
    """What was written down of one arrival, without its instants."""

    def __init__(self, attempts: list[Attempt], recorder: Recorder, client: Client, crew: Crew) -> None:
        zero = {"intended_us": 0, "sent_us": 0, "done_us": 0, "waited_us": 0, "connect_us": 0, "read_late_us": None}
        self.attempts = [msgspec.structs.replace(attempt, **zero) for attempt in attempts]
        self.firsts, self.requests, self.begun = dict(recorder.firsts), recorder.requests, client._begun
        self.faults = crew.first_fault
        self.ordered = all(0 < a.intended_us <= a.sent_us <= a.done_us for a in attempts)
        self.budget_left: Any = None


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.listener.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buyer, "PLACE_TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(swift, "PLACE_TIMEOUT_S", TIMEOUT_S)


def scripted(server: Server, answers: list[Answer]) -> None:
    left = list(answers)

    def serve(sock: socket.socket, _: int) -> None:
        while server.read(sock):
            answer = left.pop(0)
            if callable(answer):
                answer(sock)
                return
            for piece in [answer] if isinstance(answer, bytes) else answer:
                sock.sendall(piece)
                time.sleep(0.02)

    server.serve = serve


class Stage:
    """A world around a server, with a connection opened for each request that may come."""

    def __init__(self, server: Server, out: Path, connections: int = 6) -> None:
        self.out, self.clock, self.crew, self.recorder = out, Clock(), Crew(), Recorder(out)
        self.client = Client("127.0.0.1", server.port, self.clock.now_us, connections)
        self.client.warm(connections)
        target, manners = Core("127.0.0.1:1", b"g" * 32), Manners()
        self.world = World(
            target=target,
            ask=self.client.request,
            wait=self.client.request,
            gateway=Gateway(target, self.client.request, self.recorder, self.clock, lambda us: gevent.sleep(us / 1e6)),
            recorder=self.recorder,
            names=Names(b"s" * 32),
            clock=self.clock,
            sleep_us=lambda us: gevent.sleep(us / 1e6),
            spawn=self.crew.start,
            ask_beside=self.crew.ask,
            manners=manners,
            budget=RetryBudget(),
        )
        self.swift = Swift(self.world, self.client, self.crew)

    def in_hub(self, job: Callable[[], Any]) -> Any:
        said: list[Any] = []
        gevent.get_hub().loop.run_callback(lambda: said.append(job()))
        gevent.sleep(0.001)
        return said[0]

    def to_the_end(self) -> Told:
        ends = time.monotonic() + STORY_S
        while (self.crew.busy or self.swift.under_way) and time.monotonic() < ends:
            gevent.sleep(0.01)
        return self.told()

    def told(self) -> Told:
        self.client.close()
        self.recorder.close()
        return Told(list(read(self.out / "history.jsonl")), self.recorder, self.client, self.crew)


def plan_of(changes: dict[str, Any]) -> Plan:
    plain = {"again": "", "conflict": None, "ending": "never", "watch": "none", "callbacks": "once", "come_back_us": 0}
    plan: Plan = msgspec.structs.replace(Crowd(1, "hot", 5).plan(3), **plain | changes)
    return plan


@pytest.mark.parametrize("story", SCRIPTS)
def test_both_ways_write_the_same_story(story: str, server: Server, tmp_path: Path) -> None:
    """Stops: a fast path of the generator that counts, retries or judges otherwise than the way all others go."""
    answers, changes = SCRIPTS[story]
    plan, told = plan_of(changes), []
    for way in ("greenlet", "loop"):
        scripted(server, answers)
        stage = Stage(server, tmp_path / way)
        if way == "greenlet":
            stage.crew.start(play, stage.world, plan, stage.clock.now_us())
        else:
            assert stage.in_hub(lambda stage=stage: stage.swift.send(plan, stage.clock.now_us())) > 0
        told.append(stage.to_the_end())
        assert stage.swift.under_way == 0 and not stage.swift.waiting
        told[-1].budget_left = stage.world.budget._saved
    assert vars(told[0]) == vars(told[1])
    assert told[1].ordered and not told[1].faults
    assert len(told[1].attempts) == len(answers)


@pytest.mark.parametrize(("changes", "connections"), [({"looks": ("hot",)}, 1), ({"again": "at_once"}, 1), ({}, 0)])
def test_what_the_loop_cannot_send_it_leaves_alone(
    server: Server, tmp_path: Path, changes: dict[str, Any], connections: int
) -> None:
    """Stops: an order sent before its buyer has looked around, alone where two go out, or over no connection."""
    stage = Stage(server, tmp_path, connections)
    assert stage.in_hub(lambda: stage.swift.send(plan_of(changes), stage.clock.now_us())) == 0
    assert stage.told().begun == 0 and stage.swift.under_way == 0


def test_the_end_of_the_run_finds_those_whose_replies_never_came(server: Server, tmp_path: Path) -> None:
    """Stops: arrivals without a greenlet that nobody cuts off, and so nobody writes down."""
    server.serve = lambda sock, _: silent(sock)
    stage = Stage(server, tmp_path, 4)
    plans = [msgspec.structs.replace(plan_of({}), number=number) for number in range(4)]
    for plan in plans:
        assert stage.in_hub(lambda plan=plan: stage.swift.send(plan, stage.clock.now_us())) > 0
    stage.swift.hand_over()
    stage.crew.cut_off(2.0)
    told = stage.told()
    assert {(a.arrival, a.result, a.outcome) for a in told.attempts} == {
        (number, "unknown", contract.CUT_OFF) for number in range(4)
    }
    assert told.firsts == {"unknown": 4} and stage.swift.under_way == 0 and not told.faults


def test_a_refusal_is_read_once_however_often_it_comes(server: Server, tmp_path: Path) -> None:
    def serve(sock: socket.socket, _: int) -> None:
        while server.read(sock):
            sock.sendall(SOLD_OUT)

    server.serve = serve
    stage = Stage(server, tmp_path, 1)
    for number in range(20):
        plan = msgspec.structs.replace(plan_of({}), number=number)
        assert stage.in_hub(lambda plan=plan: stage.swift.send(plan, stage.clock.now_us())) > 0
        while stage.swift.under_way:
            gevent.sleep(0.001)
    assert len(stage.swift.said) == 1
    told = stage.told()
    assert told.firsts == {"sold_out": 20} and told.requests == 20 == len(told.attempts)


def test_a_connection_that_the_shop_ends_carries_no_second_order(server: Server, tmp_path: Path) -> None:
    """Stops: a known refusal over which it is overlooked that its connection is at its end."""

    def serve(sock: socket.socket, _: int) -> None:
        server.read(sock)
        sock.sendall(refusal(409, "sold_out", "Connection: close"))

    server.serve = serve
    stage = Stage(server, tmp_path, 3)
    for number in range(3):
        plan = msgspec.structs.replace(plan_of({}), number=number)
        assert stage.in_hub(lambda plan=plan: stage.swift.send(plan, stage.clock.now_us())) > 0
        while stage.swift.under_way:
            gevent.sleep(0.001)
    assert stage.in_hub(lambda: stage.swift.send(plan, stage.clock.now_us())) == 0
    assert stage.told().firsts == {"sold_out": 3}


def test_who_waits_for_a_connection_gets_the_one_that_carried_a_refusal(server: Server, tmp_path: Path) -> None:
    """Stops: a buyer who waits for ever while connections lie idle."""

    def serve(sock: socket.socket, _: int) -> None:
        while server.read(sock):
            time.sleep(0.05)
            sock.sendall(SOLD_OUT)

    server.serve = serve
    stage = Stage(server, tmp_path, 1)
    stage.swift.refused(plan_of({}), SOLD_OUT)
    assert stage.in_hub(lambda: stage.swift.send(plan_of({}), stage.clock.now_us())) > 0
    waits = stage.crew.ask(stage.client.request, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 2.0)
    assert waits.get(timeout=3).status == 409
    assert stage.to_the_end().firsts == {"sold_out": 1}


def test_an_order_whose_sending_fails_was_sent_at_an_instant(server: Server, tmp_path: Path) -> None:
    """Stops: an attempt without an instant, which no histogram and no checker sees."""
    scripted(server, [reset])
    stage = Stage(server, tmp_path, 1)
    gevent.sleep(0.01)
    (connection,) = stage.client._idle
    connection.sock.shutdown(socket.SHUT_WR)  # the loop has not looked at it yet
    plan = plan_of({"retries": "budget"})
    sent_us = stage.in_hub(lambda: stage.swift.send(plan, stage.clock.now_us()))
    stage.crew.cut_off(1.0)
    told = stage.told()
    (attempt,) = told.attempts
    assert (attempt.result, attempt.outcome) == ("unknown", contract.RESET)
    assert sent_us > 0 and told.ordered and told.requests == 1 and stage.swift.under_way == 0


def test_who_is_answered_while_the_run_is_cut_off_is_written_down_once(server: Server, tmp_path: Path) -> None:
    """Stops: an arrival that the loop and a greenlet both bring to an end, over one connection."""
    answer = threading.Event()

    def serve(sock: socket.socket, _: int) -> None:
        while server.read(sock):
            answer.wait(5)
            sock.sendall(SOLD_OUT)

    server.serve = serve
    stage = Stage(server, tmp_path, CROWD)
    ReplyReader().feed(SOLD_OUT)  # its head is known, so the loop itself may settle it
    plans = [msgspec.structs.replace(plan_of({}), number=number) for number in range(CROWD)]
    sent = stage.in_hub(lambda: [stage.swift.send(plan, stage.clock.now_us()) for plan in plans])
    assert all(sent)
    answer.set()
    _stand_still(0.1)  # the generator is busy while replies come, and then the run is over
    stage.swift.hand_over()
    stage.crew.cut_off(2.0)
    told = stage.told()
    assert sorted(a.arrival for a in told.attempts) == list(range(CROWD))
    assert sum(told.firsts.values()) == CROWD and stage.swift.under_way == 0 and not told.faults
