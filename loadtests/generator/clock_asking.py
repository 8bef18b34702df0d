"""Asking workers for their clocks, by Locust's own messages; what the answers mean is ``loadtests.record.axis``.

All workers are asked side by side, so that many far ones take no longer than one. Each has one question under way and
is asked anew when it has answered. The questions leave a millisecond apart: answers that came together would wait for
each other at the master, and the wait would count as round trip. Reading all clocks takes ``ASKING_MOST_S`` at most,
however many there are; the more there are, the fewer times is each asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

import gevent
from gevent.event import AsyncResult, Event
from gevent.queue import Queue

from loadtests.record.axis import Reading, read_once, surest

WORD: Final = "fp_clock"
ASKED_LEAST: Final = 8
ASKED_MOST: Final = 200
SURE_US: Final = 50  # what is known so well is asked no more
APART_S: Final = 0.001
ANSWER_MOST_S: Final = 1.0
ASKING_MOST_S: Final = 5.0  # all workers together


class NoAnswer(Exception):
    """Workers did not tell their time."""

    def __init__(self, clients: list[str]) -> None:
        """Take their client ids."""
        super().__init__(", ".join(clients))
        self.clients = clients


def now_us() -> int:
    """Return this process's monotonic clock."""
    return time.monotonic_ns() // 1000


def answer(runner: Any) -> None:
    """Have a worker answer whoever asks for its time."""

    def tell(msg: Any, **_: Any) -> None:
        runner.send_message(WORD, {"number": msg.data["number"], "at_us": now_us()})

    runner.register_message(WORD, tell)


class Asking:
    """The master's side."""

    def __init__(self, runner: Any) -> None:
        """Listen to the answers."""
        self._runner = runner
        self._number = 0
        self._asked: dict[int, tuple[str, AsyncResult]] = {}  # the questions under way
        self._waiting: Queue = Queue()  # for their turn, first come first served: by a lock the same few would go on
        runner.register_message(WORD, self._on_answer)

    def read(self, clients: Iterable[str]) -> dict[str, Reading]:
        """Return each worker's clock as it reads from here, within ``ASKING_MOST_S``.

        Raises:
            NoAnswer: some answer nothing; it says which.
        """
        until_us = now_us() + round(ASKING_MOST_S * 1e6)
        turns = gevent.spawn(self._give_turns)
        asking = {client: gevent.spawn(self._read, client, until_us) for client in clients}
        try:
            gevent.joinall(list(asking.values()), raise_error=True)
        finally:
            gevent.killall([turns, *asking.values()])
        readings = {client: greenlet.value for client, greenlet in asking.items()}
        if silent := [client for client, found in readings.items() if not found]:
            raise NoAnswer(silent)
        return {client: surest(found) for client, found in readings.items()}

    def _read(self, client: str, until_us: int) -> list[Reading]:
        """Ask one worker until its clock is known well, or time is over."""
        readings: list[Reading] = []
        for asked in range(1, ASKED_MOST + 1):
            reading = self._ask(client, until_us)
            readings += [reading] if reading else []
            known = asked >= ASKED_LEAST and readings and surest(readings).within_us <= SURE_US
            if known or now_us() >= until_us:
                break
        return readings

    def _ask(self, client: str, until_us: int) -> Reading | None:
        turn = Event()
        self._waiting.put(turn)
        if not turn.wait(_left_s(until_us)):
            return None
        self._number += 1
        number, told = self._number, AsyncResult()
        self._asked[number] = client, told
        sent_us = now_us()
        self._runner.send_message(WORD, {"number": number}, client)
        try:
            theirs_us, back_us = told.get(timeout=min(ANSWER_MOST_S, _left_s(until_us)))
        except gevent.Timeout:
            return None
        finally:
            del self._asked[number]
        return read_once(sent_us, theirs_us, back_us)

    def _give_turns(self) -> None:
        while True:
            self._waiting.get().set()
            gevent.sleep(APART_S)

    def _on_answer(self, msg: Any, **_: Any) -> None:
        back_us = now_us()
        client, told = self._asked.get(msg.data["number"], ("", None))
        if told is not None and client == msg.node_id:  # not one that was given up
            told.set((msg.data["at_us"], back_us))


def _left_s(until_us: int) -> float:
    return max(0.0, (until_us - now_us()) / 1e6)
