"""What raises in the loop itself, or comes faster than it naps, stops nothing."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from loadtests.generator.arrivals import Constant
from loadtests.generator.buyer import play
from loadtests.generator.clock import Clock
from loadtests.generator.crew import Crew
from loadtests.generator.dispatcher import NAP_MOST_US, Dispatcher
from loadtests.generator.plan import Plan
from loadtests.targets.core import Core
from tests.harness.test_client import Server
from tests.harness.test_swift import SOLD_OUT, Stage, hasty, plan_of, server

__all__ = ["hasty", "server"]  # fixtures


def test_a_fault_of_an_adapter_is_counted_once_and_the_others_go_on(server: Server, tmp_path: Path) -> None:
    """Stops: a run that hangs, or loses count, because something raised in the loop itself."""

    def serve(sock: socket.socket, _: int) -> None:
        while server.read(sock):
            sock.sendall(SOLD_OUT)

    class Faulty(Core):
        def read(self, call: Any, reply: Any) -> Any:
            if self.faulty:
                self.faulty = False
                raise ValueError("an answer that this adapter cannot read")
            return super().read(call, reply)

        faulty = True

    server.serve = serve
    stage = Stage(server, tmp_path, 2)
    target = Faulty("127.0.0.1:1", b"g" * 32)
    target.read, read_well = lambda *_: 1 / 0, target.read  # type: ignore[assignment,method-assign,return-value]
    stage.swift.world = stage.world = msgspec.structs.replace(stage.world, target=target)
    stage.swift.said.clear()
    assert stage.in_hub(lambda: stage.swift.send(plan_of({}), stage.clock.now_us())) > 0
    while stage.crew.busy or stage.swift.under_way > 0:
        gevent.sleep(0.001)
    assert (stage.crew.faults, stage.swift.under_way, len(stage.client._busy)) == (1, 0, 0)
    target.read = read_well  # type: ignore[method-assign]
    target.faulty = False
    assert stage.in_hub(lambda: stage.swift.send(plan_of({}), stage.clock.now_us())) > 0
    told = stage.to_the_end()
    assert told.firsts == {"sold_out": 1} and stage.crew.faults == 1


@pytest.mark.parametrize("broken", ["plan", "place"])
def test_a_run_goes_on_past_an_arrival_that_cannot_be_sent(server: Server, tmp_path: Path, broken: str) -> None:
    """Stops: a timer that is never set again because one arrival raised while it rang."""

    def serve(sock: socket.socket, _: int) -> None:
        while server.read(sock):
            sock.sendall(SOLD_OUT)

    class Odd(Core):
        def place(self, key: str, *more: Any) -> Any:
            raw = self._wire.place(key, *more)
            return raw.decode() if key == "k1-20" else raw

    server.serve = serve
    stage = Stage(server, tmp_path, 8)
    if broken == "place":
        target = Odd.__new__(Odd)
        target.__dict__.update(vars(Core("127.0.0.1:1", b"g" * 32)))
        del target.__dict__["place"]
        stage.swift.world = stage.world = msgspec.structs.replace(stage.world, target=target)

    def plan(number: int) -> Plan:
        if broken == "plan" and number == 20:
            raise ValueError("no such arrival")
        changes = {"number": number, "idempotency_key": f"k1-{number}"}
        return msgspec.structs.replace(plan_of({}), **changes)

    def begin(one: Plan, due_us: int) -> None:
        play(stage.world, one, due_us)

    dispatcher = Dispatcher(
        Constant(400, 0.25), stage.crew, plan, begin, stage.recorder, stage.clock, swift=stage.swift, drain_most_s=2.0
    )
    generated = dispatcher.run()
    assert (generated.scheduled, generated.crashed, generated.left) == (100, 1, 0)
    assert not generated.complete, "a fault of the generator is never passed over"
    assert stage.told().firsts == {"sold_out": 99}


def test_a_plan_that_outruns_a_nap_is_kept_all_the_same() -> None:
    """Stops: a generator that sleeps while arrivals are overdue, and then believes that the shop is slow."""
    sent: list[int] = []

    class Sends:
        under_way = 0

        def send(self, plan: Any, due_us: int) -> int:
            sent.append(due_us)
            return due_us + 1

        def hand_over(self) -> None:
            """Nothing is under way."""

    class Quiet:
        firsts: dict[str, int] = {}  # noqa: RUF012

    clock = Clock()
    dispatcher = Dispatcher(
        Constant(40_000, 0.5),
        Crew(),
        lambda number: None,
        lambda *_: None,
        Quiet(),
        clock,
        swift=Sends(),  # type: ignore[arg-type,return-value]
    )
    dispatcher._nap_us = NAP_MOST_US
    clock.restart()
    assert dispatcher._dispatch()
    assert len(sent) == 20_000 and clock.now_us() < 1_000_000
