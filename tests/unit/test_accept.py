"""Accepting: a small part of a turn, and at the end everybody who waits."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from core.web.accept import Acceptor
from core.web.addresses import Addresses
from core.web.deadlines import Deadlines
from core.web.leisure import Leisure
from core.web.share import LEAST_S, Share

CLIENTS = 600


class Guest(asyncio.Protocol):
    """Who is let in when all is over."""

    said = b""

    def lost(self) -> None:
        """Nobody asks."""


class Making:
    """A server as far as it is needed."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines, self.leisure = deadlines, Leisure()

    def __call__(self) -> Guest:
        return Guest()


pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the porch stands on Linux alone")


def before_a_queue(story: Callable[[Acceptor, Addresses], None]) -> None:
    """Play a story with a queue in which clients wait; nothing but the story accepts them."""

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        server: Any = Making(Deadlines(loop))
        addresses = Addresses(0, ())
        with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS + 10) as listening:
            acceptor = Acceptor(listening, server, addresses)
            acceptor.start()
            listening.setblocking(False)
            clients = [socket.create_connection(listening.getsockname(), 1.0) for _ in range(CLIENTS)]
            try:
                story(acceptor, addresses)
            finally:
                for client in clients:
                    client.close()
                await acceptor.leave()

    asyncio.run(whole())


def test_a_crowd_is_accepted_in_parts_until_nobody_waits() -> None:
    """Stops: a turn of some milliseconds for those who only come; and a part that leaves the last ones waiting."""

    def story(acceptor: Acceptor, addresses: Addresses) -> None:
        parts = list[int]()
        while addresses.open < CLIENTS:
            before = addresses.open
            acceptor._ready()
            parts.append(addresses.open - before)
            assert parts[-1] > 0, "each turn accepts somebody"
        assert parts[0] < CLIENTS / 4

    before_a_queue(story)


def test_who_was_the_last_to_be_accepted_leaves_nothing_to_do_behind() -> None:
    """Stops: the rest until the next burst taken for a turn, and a quarter of a minute given to that burst."""

    def story(acceptor: Acceptor, addresses: Addresses) -> None:
        steps = count()
        acceptor._share = share = Share(lambda: next(steps) * LEAST_S)  # each item uses the part up
        while addresses.open < CLIENTS:
            acceptor._ready()
            assert (share._left_off_s is None) == (addresses.open == CLIENTS)

    before_a_queue(story)


def test_at_the_end_everybody_who_waits_is_accepted() -> None:
    """Stops: buyers in the kernel's queue who are reset because a stopping server took only a part of them in."""

    def story(acceptor: Acceptor, addresses: Addresses) -> None:
        acceptor._ready(all_of_them=True)
        assert addresses.open == CLIENTS

    before_a_queue(story)
