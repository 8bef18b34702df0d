"""The client beside a flood: payment callbacks and questions for orders, on one connection, one at a time."""

from __future__ import annotations

import base64
import socket
import threading
import time
from typing import Final, Self

from benchmarks.ceiling.asks import HOST, Spec, asks
from core.settings import Settings
from loadtests.trials.flood import Told

_PROBE_FIRST: Final = 500_000_000  # orders of the probe; the flood's begin at 0
_PROBE_ORDERS: Final = 1_500
_PROBE_PAUSE_S: Final = 0.03


class Beside(threading.Thread):
    """The client beside the flood: pays an order, asks for it, pauses; on one connection of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self._settings, self._over = settings, threading.Event()
        self.took: list[tuple[float, str, float]] = []  # at, what, seconds
        self.refused = 0
        self.fault = ""

    def run(self) -> None:
        """Go on until told to end."""
        try:
            self._go_on()
        except (OSError, ValueError) as error:
            self.fault = f"{type(error).__name__}: {error}"

    def _go_on(self) -> None:
        settings, now_s = self._settings, int(time.time())
        sock = self._connect()
        order, pay, look = [asks(_spec(settings, kind), now_s) for kind in ("order", "callback", "status")]
        for number in range(_PROBE_FIRST, _PROBE_FIRST + _PROBE_ORDERS):
            _ask(sock, order(number), (b"201",))
        number = _PROBE_FIRST
        while not self._over.wait(_PROBE_PAUSE_S):
            for what, raw in (("callback", pay(number)), ("status", look(number))):
                began = time.monotonic()
                head = _ask(sock, raw, (b"200", b"503"))
                self.took.append((began, what, time.monotonic() - began))
                self.refused += head.startswith(b"HTTP/1.1 503")
                if b"\r\nConnection: close\r\n" in head:
                    sock.close()
                    sock = self._connect()
            number = _PROBE_FIRST + (number + 1 - _PROBE_FIRST) % _PROBE_ORDERS

    def _connect(self) -> socket.socket:
        return socket.create_connection((HOST, self._settings.port), 10.0)

    def __enter__(self) -> Self:
        """Begin."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        self.join(20.0)

    def told(self, phase: Told) -> dict[str, list[float]]:
        """Return count, p50, p99 and greatest in ms of each kind within a phase."""
        found = {}
        for kind in ("callback", "status"):
            took = sorted(
                1000 * took
                for at, what, took in self.took
                if what == kind and phase.began_s <= at < phase.began_s + phase.seconds
            )
            if took:
                found[kind] = [float(len(took)), took[len(took) // 2], took[int(len(took) * 0.99)], took[-1]]
        return found


def _spec(settings: Settings, kind: str) -> Spec:
    secret, sandbox = (base64.b64encode(one).decode() for one in (settings.secret, settings.sandbox_secret))
    return Spec(settings.port, kind, _PROBE_FIRST, 1, 0.0, 0, _PROBE_ORDERS, 200, secret, sandbox, {})


def _ask(sock: socket.socket, raw: bytes, expect: tuple[bytes, ...]) -> bytes:
    """Send one request, read its whole answer, return its head.

    Raises ValueError if the status is none of the expected.
    """
    sock.sendall(raw)
    data = b""
    while True:
        part = sock.recv(16_384)
        if not part:
            raise ConnectionResetError("the server closed the connection of payments")
        data += part
        head, end, body = data.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.split(b"Content-Length: ")[1].split(b"\r")[0]):
            break
    if data[9:12] not in expect:
        raise ValueError(f"beside the flood a {data[9:12].decode()} came: {data[-200:]!r}")
    return head + b"\r\n"
