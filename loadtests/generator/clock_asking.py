"""Asking a worker for its clock, by Locust's own messages; what the answers mean is ``loadtests.record.axis``."""

from __future__ import annotations

import time
from typing import Any, Final

import gevent
from gevent.event import AsyncResult

from loadtests.record.axis import Reading, read_once, surest

WORD: Final = "fp_clock"
ASKED_LEAST: Final = 8
ASKED_MOST: Final = 200
SURE_US: Final = 50  # what is known so well is asked no more
ANSWER_MOST_S: Final = 1.0
ASKING_MOST_S: Final = 5.0  # a worker


class NoAnswer(Exception):
    """A worker did not tell its time."""


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
        self._answer: AsyncResult = AsyncResult()
        runner.register_message(WORD, self._on_answer)

    def read(self, client: str) -> Reading:
        """Return a worker's clock as it reads from here.

        Raises:
            NoAnswer: it answers nothing.
        """
        readings: list[Reading] = []
        until_us = now_us() + round(ASKING_MOST_S * 1e6)
        for asked in range(1, ASKED_MOST + 1):
            reading = self._ask(client)
            readings += [reading] if reading else []
            known = asked >= ASKED_LEAST and readings and surest(readings).within_us <= SURE_US
            if known or now_us() > until_us:
                break
        if not readings:
            raise NoAnswer
        return surest(readings)

    def _ask(self, client: str) -> Reading | None:
        self._number += 1
        self._answer = AsyncResult()
        sent_us = now_us()
        self._runner.send_message(WORD, {"number": self._number}, client)
        try:
            theirs_us, back_us = self._answer.get(timeout=ANSWER_MOST_S)
        except gevent.Timeout:
            return None
        return read_once(sent_us, theirs_us, back_us)

    def _on_answer(self, msg: Any, **_: Any) -> None:
        back_us = now_us()
        if msg.data["number"] == self._number:  # not one that was given up
            self._answer.set((msg.data["at_us"], back_us))
