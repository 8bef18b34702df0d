"""What lean users account for: a histogram for each name and outcome, a history, and Locust's own statistics."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent
import msgspec

from loadtests.generator.client import Client
from loadtests.generator.locust_stats import LocustStats
from loadtests.generator.recorder import Buckets
from loadtests.record.counted import NAMES_MOST

FLUSH_S: Final = 0.5
BUFFER_BYTES_MOST: Final = 262_144
_ATTRIBUTE: Final = "flashproof_lean"  # of Locust's environment


class Call(msgspec.Struct, omit_defaults=True, gc=False):
    """One request, as a line of ``requests.jsonl``. Instants are µs since the test's start."""

    op: str  # GET, POST, …
    name: str
    intended_us: int  # when the task asked for it; in a closed loop nothing better is known
    sent_us: int  # 0: nothing was sent
    done_us: int
    result: str  # ok; fail; unknown: it was sent, and no whole reply came back
    status: int = 0
    outcome: str = ""  # ok, http_<status>, timeout, reset, …, or what the task said
    length: int = 0  # bytes of the reply's body
    read_late_us: int | None = None  # how long its end lay in the kernel unread; None: not measured, as for 15 of 16


class Accounts:
    """All requests of one test in one process."""

    def __init__(self, environment: Any, out_dir: Path | None, fires_every_request: bool) -> None:
        """Begin a test.

        Args:
            environment: Locust's.
            out_dir: where the history and the histograms go; None: they are not kept.
            fires_every_request: fire ``events.request`` for each success too.

        Raises:
            OSError: the directory cannot be written.
        """
        self._zero_ns = time.monotonic_ns()
        self._fire = environment.events.request.fire if fires_every_request else None
        self._stats = LocustStats(environment)
        self._clients: dict[tuple[str, int], Client] = {}
        self._buckets: dict[tuple[str, str, str], Buckets] = {}
        self._encoder, self._buffer = msgspec.json.Encoder(), bytearray()
        self._out_dir = out_dir
        if out_dir is not None:
            out_dir.mkdir(parents=True, exist_ok=True)
            self._history = (out_dir / "requests.jsonl").open("wb")
        self.requests = 0
        self._flusher: Any = gevent.spawn(self._flush_for_ever)

    def now_us(self) -> int:
        """Return microseconds since the test's start."""
        return (time.monotonic_ns() - self._zero_ns) // 1000

    def client(self, host: str, port: int, connections_most: int) -> Client:
        """Return the connections to an address, shared by all users.

        Raises:
            OSError: the name cannot be resolved.
        """
        found = self._clients.get((host, port))
        if found is None:
            found = self._clients[host, port] = Client(host, port, self.now_us, connections_most)
        return found

    def note(self, call: Call) -> None:
        """Account for one finished request: 1 to 2 µs."""
        self.requests += 1
        latency_us = call.done_us - call.intended_us
        error = "" if call.result == "ok" else call.outcome
        if self._fire is not None and not error:
            self._fire(
                request_type=call.op,
                name=call.name,
                response_time=latency_us / 1000,
                response_length=call.length,
                exception=None,
                context={},
            )
        else:
            self._stats.add(call.op, call.name, latency_us, call.length, error)
        if self._out_dir is None:
            return
        key = (call.op, call.name, call.outcome)
        buckets = self._buckets.get(key)
        if buckets is None:
            if len(self._buckets) >= NAMES_MOST:
                key = ("", "other", "")
            buckets = self._buckets.setdefault(key, Buckets())
        buckets.add(latency_us)
        buffer = self._buffer
        self._encoder.encode_into(call, buffer, -1)
        buffer += b"\n"
        if len(buffer) > BUFFER_BYTES_MOST:
            self._write()

    def flush(self) -> None:
        """Write what is buffered and merge into Locust's statistics."""
        self._stats.flush()
        self._write()

    def close(self) -> None:
        """End the test: write everything, close every connection."""
        self._flusher.kill(block=False)
        self.flush()
        for client in self._clients.values():
            client.close()
        if self._out_dir is not None:
            self._history.close()
            told = {" ".join(key).strip(): buckets.summary() for key, buckets in sorted(self._buckets.items())}
            path = self._out_dir / "histograms.json"
            path.write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")

    def _write(self) -> None:
        if self._buffer:
            self._history.write(self._buffer)
            self._buffer.clear()

    def _flush_for_ever(self) -> None:
        while True:
            gevent.sleep(FLUSH_S)
            self.flush()


def accounts_of(environment: Any, fires_every_request: bool = False) -> Accounts:
    """Return the accounts of the test that runs in this environment; a new test gets new ones.

    Raises:
        OSError: ``--lean-out`` cannot be written.
    """
    found: Accounts | None = getattr(environment, _ATTRIBUTE, None)
    if found is None:
        out = getattr(environment.parsed_options, "lean_out", "") if environment.parsed_options else ""
        found = Accounts(environment, Path(out) if out else None, fires_every_request)
        setattr(environment, _ATTRIBUTE, found)
        environment.events.test_stop.add_listener(_closing(environment, found))
    return found


def _closing(environment: Any, accounts: Accounts) -> Callable[..., None]:
    def close(**_: Any) -> None:
        accounts.close()
        if getattr(environment, _ATTRIBUTE, None) is accounts:
            setattr(environment, _ATTRIBUTE, None)
        environment.events.test_stop.remove_listener(close)

    return close
