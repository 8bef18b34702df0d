"""A real master of a run whose workers are simulated: each as far away as is said, with a clock of its own.

Run as a process of its own, for the master is Locust's: ``python -m tests.harness.far_workers DIRECTORY JSON``.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import gevent
import msgspec

from loadtests.generator import clock_asking, fleet, follow
from loadtests.generator.clock_asking import WORD, now_us
from loadtests.generator.likeness import likeness

SECRETS: Final = b"secret"
MOST_S: Final = 40.0
HOUR_US: Final = 3_600_000_000


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is played."""

    workers: int
    round_trip_s: float  # 0: an answer comes in the next turn of the loop
    asking_most_s: float
    silent_before: list[int] = []  # who does not tell its time, before the run and after it
    silent_after: list[int] = []


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the master did."""

    begun_after_s: float  # from the last worker's being ready; 0: never
    starts_us: list[int]  # when each was told to begin, on the master's clock
    questions: list[int]  # put to each worker
    under_way_most: int  # questions at once
    over: dict[str, Any]  # what the workers were told of the end
    exit_code: int | None
    start_takes_s: float  # at most, from the test's start: what the master allows
    go_waits_s: float  # what a worker allows


class _Clients(dict[str, Any]):
    @property
    def ready(self) -> list[Any]:
        return list(self.values())


class FarWorkers:
    """Stands in for Locust's runner: what the master sends arrives half a round trip later, and so do the answers."""

    def __init__(self, out: Path, workers: int, round_trip_s: float) -> None:
        """Set a master before so many workers; worker k's clock is k hours ahead."""
        self.said: list[tuple[str, str | None, Any]] = []  # by the master: message, to whom, what
        self.silent: set[str] = set()  # who does not tell its time
        self.under_way = self.under_way_most = 0  # questions
        self.names = [f"host{number:02}_{'0' * 32}" for number in range(workers)]
        self.clients = _Clients((name, SimpleNamespace(id=name, state="ready")) for name in self.names)
        self._half_s, self._listeners = round_trip_s / 2, {}  # type: dict[str, Callable[..., None]]
        begin: list[Callable[..., None]] = []
        self.environment = SimpleNamespace(
            runner=self,
            web_ui=None,
            process_exit_code=None,
            parsed_options=SimpleNamespace(fp_tell=False),
            events=SimpleNamespace(test_start=SimpleNamespace(add_listener=begin.append)),
        )
        fleet.Lead(self.environment, "flash_sale", out, SECRETS, lambda progress: None)
        begin[0]()

    def ahead_us(self, name: str) -> int:
        """Return what a worker's clock shows more than the master's."""
        return self.names.index(name) * HOUR_US

    def all_ready(self) -> None:
        """Have all workers say that they are ready."""
        for name in self.names:
            mine = msgspec.structs.replace(likeness(name, SECRETS), clock=name)
            self._listeners["fp_ready"](msg=SimpleNamespace(node_id=name, data=msgspec.to_builtins(mine)))

    def all_done(self) -> None:
        """Have all workers say that their files are home."""
        for name in self.names:
            done = {"code": 0, "home": True, "why": ""}
            self._listeners["fp_done"](msg=SimpleNamespace(node_id=name, data=done))

    def told(self, word: str) -> dict[str | None, Any]:
        """Return what the master has told by such a message, by the worker; None: all of them."""
        return {client: data for said, client, data in self.said if said == word}

    def await_message(self, *words: str) -> None:
        """Wait until the master has said one of them."""
        with gevent.Timeout(MOST_S):
            while not any(map(self.told, words)):
                gevent.sleep(0.005)

    # --- what the master calls -------------------------------------------------------------------------------------

    def register_message(self, word: str, listener: Callable[..., None]) -> None:
        """Keep who listens."""
        self._listeners[word] = listener

    def send_message(self, word: str, data: Any = None, client: str | None = None) -> None:
        """Carry a message to a worker."""
        self.said.append((word, client, data))
        if word == WORD and client not in self.silent:
            self.under_way += 1
            self.under_way_most = max(self.under_way_most, self.under_way)
            gevent.spawn(self._answer, client, data["number"])

    def _answer(self, name: str, number: int) -> None:
        gevent.sleep(self._half_s)
        theirs_us = now_us() + self.ahead_us(name)
        gevent.sleep(self._half_s)
        self.under_way -= 1
        self._listeners[WORD](msg=SimpleNamespace(node_id=name, data={"number": number, "at_us": theirs_us}))

    def get_worker_index(self, name: str) -> int:
        """Return a worker's number."""
        return self.names.index(name)

    def quit(self) -> None:
        """End."""


def play(out: Path, case: Case) -> Seen:
    """Play a case to the start and, where somebody is silent, to the end."""
    clock_asking.ASKING_MOST_S = case.asking_most_s  # type: ignore[misc]
    workers = FarWorkers(out, case.workers, case.round_trip_s)
    workers.silent = {workers.names[number] for number in case.silent_before}
    began = time.monotonic()
    workers.all_ready()
    workers.await_message("fp_go", "fp_over")
    gevent.sleep(0)  # all are told in one turn
    begun = workers.told("fp_go")
    begun_after_s = time.monotonic() - began if begun else 0.0
    if case.silent_after:
        workers.silent = {workers.names[number] for number in case.silent_after}
        workers.all_done()
        workers.await_message("fp_over")
    asked = Counter(client for word, client, _ in workers.said if word == WORD)
    return Seen(
        begun_after_s=begun_after_s,
        starts_us=[go["start_us"] - workers.ahead_us(str(name)) for name, go in begun.items()],
        questions=[asked[name] for name in workers.names],
        under_way_most=workers.under_way_most,
        over=workers.told("fp_over").get(None, {}),
        exit_code=workers.environment.process_exit_code,
        start_takes_s=fleet.READY_MOST_S + case.asking_most_s + fleet.LEAD_S,
        go_waits_s=follow.GO_MOST_S,
    )


if __name__ == "__main__":
    seen = play(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Case))
    sys.stdout.write(msgspec.json.encode(seen).decode())
