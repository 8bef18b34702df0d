"""A flash sale played by a generator that stands still for 8 ms whenever it has sent an arrival's first request."""

from __future__ import annotations

from typing import Any

import gevent
from gevent.monkey import get_original

from loadtests.generator import run
from loadtests.scenarios import flash_sale

STANDS_STILL_S = 0.008
_stand_still = get_original("time", "sleep")  # Locust's own lets others run
_play = run.play


def play(world: Any, plan: Any, due_us: int) -> None:
    """Play the arrival; the loop's next turn, in which its reply could be read, begins with standing still."""
    gevent.spawn(_stand_still, STANDS_STILL_S)
    _play(world, plan, due_us)


run.play = play
LateReader = flash_sale.FlashSale
