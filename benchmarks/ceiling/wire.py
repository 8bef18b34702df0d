"""A blocking connection to Valkey on which calls may be pipelined: making load must cost less than bearing it."""

from __future__ import annotations

import socket
from typing import Any, Final

import hiredis

_ANSWER_MOST_S: Final = 10.0


class Wire:
    """One connection. Send and read as you like; answers come in the order of the calls."""

    def __init__(self, url: str) -> None:
        """Connect to ``unix://…``."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(_ANSWER_MOST_S)
        self._sock.connect(url.removeprefix("unix://").partition("?")[0])
        self._reader = hiredis.Reader(replyError=ValueError, notEnoughData=...)

    def send(self, packed: bytes) -> None:
        """Send a call that ``pack`` has made."""
        self._sock.sendall(packed)

    def read(self) -> Any:
        """Return the next answer.

        Raises:
            ValueError: it is an error. OSError: none came.
        """
        while (reply := self._reader.gets()) is ...:
            self._reader.feed(self._sock.recv(65_536))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def ask(self, *command: bytes | str | int) -> Any:
        """Send one command and return its answer; nothing else may be under way."""
        self.send(pack(*command))
        return self.read()

    def close(self) -> None:
        """Drop the connection."""
        self._sock.close()


def pack(*command: bytes | str | int) -> bytes:
    """Return a command as it goes over the wire."""
    return bytes(hiredis.pack_command(command))  # type: ignore[arg-type]  # it takes ints too
