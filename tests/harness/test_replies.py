"""A crowd of replies is worked through in pieces: what comes meanwhile is read in between, not behind it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import gevent

from loadtests.generator.alarm import Urgent
from loadtests.generator.connection import Connection, Replies

CROWD = 40
WORK_S = 0.0003  # what each of the crowd does with its reply


def now_us() -> int:
    return time.monotonic_ns() // 1000


class Asker:
    """Takes a reply in the hub."""

    def __init__(self, replies: Replies, does: Callable[[], None]) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.connection = Connection(ours, now_us, Urgent(), replies)
        self.connection.waiting = self
        self.does, self.done_us = does, 0

    def switch(self) -> None:
        self.does()
        self.done_us = now_us()

    def throw(self, error: Exception) -> None:
        raise AssertionError from error

    def hand_over(self, rest: bytes) -> None:
        raise AssertionError(rest)


def work() -> None:
    until = time.perf_counter() + WORK_S
    while time.perf_counter() < until:
        pass


def test_a_reply_that_comes_while_a_crowd_goes_on_is_read_before_the_crowd_is_done() -> None:
    """Stops: a generator that lays its own work on the shop: the later a reply is read, the longer it seems."""
    replies = Replies(Urgent())
    late = Asker(replies, lambda: None)

    def goes_on() -> None:
        if not any(asker.done_us for asker in crowd):  # the first of them, whichever the loop hands out first
            late.theirs.send(b"late")
        work()

    crowd = [Asker(replies, goes_on) for _ in range(CROWD)]
    for asker in crowd:
        asker.theirs.send(b"reply")
    ends = time.monotonic() + 5
    while not late.done_us and time.monotonic() < ends:
        gevent.sleep(0.001)
    assert all(asker.done_us for asker in crowd), "all of the crowd went on, though the loop looked elsewhere"
    read_us = late.connection.read_us
    done = sum(asker.done_us < read_us for asker in crowd)
    assert 0 < done < CROWD / 2
    replies.close()
    for asker in (late, *crowd):
        asker.connection.close()
        asker.theirs.close()
