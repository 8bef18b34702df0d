"""The Locust file of the generator's ceiling: one user class a kind, measured from inside its own process.

``FP_CEILING`` says how long to warm up and to measure, in seconds, as ``0.5,2``. What was reached is printed as one
line of JSON: requests and failures as Locust's own statistics count them, and the process's CPU. Which class runs is
the last word of Locust's command line.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

import gevent
import msgspec
from locust import FastHttpUser, constant, events, task

from loadtests.generator.ceiling import PREFIX, VARIABLE, Reached
from loadtests.generator.lean_accounts import accounts_of
from loadtests.generator.lean_user import LeanUser

PATH: Final = "/v1/products/hot"


class Fast(FastHttpUser):  # type: ignore[misc]  # Locust is untyped here
    """Locust's own fast user."""

    wait_time = constant(0)

    @task  # type: ignore[untyped-decorator]
    def look(self) -> None:
        """Ask once."""
        self.client.get(PATH)


class Lean(LeanUser):
    """The lean user."""

    wait_time = constant(0)

    @task  # type: ignore[untyped-decorator]
    def look(self) -> None:
        """Ask once."""
        self.client.get(PATH)


@events.spawning_complete.add_listener  # type: ignore[untyped-decorator]
def begin(user_count: int, **_: Any) -> None:
    """Measure beside the users."""
    gevent.spawn(_measure)


@events.init.add_listener  # type: ignore[untyped-decorator]
def remember(environment: Any, **_: Any) -> None:
    """Keep the environment: the event above does not tell it."""
    global _environment
    _environment = environment


_environment: Any = None


def _measure() -> None:
    warm_s, seconds = (float(word) for word in os.environ[VARIABLE].split(","))
    gevent.sleep(warm_s)
    before, cpu, began = _counted(), time.process_time(), time.monotonic()
    gevent.sleep(seconds)
    after, cpu_after, ended = _counted(), time.process_time(), time.monotonic()
    reached = Reached(after[0] - before[0], after[1] - before[1], ended - began, cpu_after - cpu)
    sys.stdout.write(f"{PREFIX}{msgspec.json.encode(reached).decode()}\n")
    sys.stdout.flush()
    _environment.runner.quit()


def _counted() -> tuple[int, int]:
    if "Lean" in _environment.runner.user_classes_count:
        accounts_of(_environment).flush()
    return _environment.stats.total.num_requests, _environment.stats.total.num_failures
