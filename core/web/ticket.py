"""A request of the lane under way: whose it is, and how its answer gets back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from core.errors import InternalError, Refusal
from core.telemetry import REFUSALS, log

if TYPE_CHECKING:
    from core.web.lane import Lane


class Connection(Protocol):
    """Who sent a request: see ``core/web/protocol.py``."""

    ticket: Ticket | None  # the request under way

    def answered(self, raw: bytes | None, data: bytes) -> None:
        """Send the answer to the request ``data``; None: it has to go the slow way."""

    def fail(self) -> None:
        """End at once: something of ours went wrong."""


class Ticket(msgspec.Struct, eq=False):
    """A request of the lane under way; a sink for the batch it stands in. It keeps the bytes: they may have to go the
    slow way yet. A struct because making one calls no Python.
    """

    lane: Lane
    connection: Connection | None
    data: bytes

    def done(self) -> bool:
        """Say whether nobody wants the answer any more."""
        return self.connection is None

    def set_result(self, answer: Any, /) -> None:
        """Answer the request, unless the client has gone."""
        if self.connection is None:
            return
        try:
            self.finish(self.told(answer))
        except Exception as error:  # noqa: BLE001  # a sink must not raise
            self.set_exception(error)

    def set_exception(self, error: Exception, /) -> None:
        """Answer with what went wrong."""
        if isinstance(error, Refusal):
            REFUSALS.add(error.code)
            self.finish(self.lane.answers.refused(error))
            return
        path = self.data.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1")
        log("error", "request_failed", path=path, error=error)
        self.finish(self.lane.answers.refused(InternalError))

    def told(self, answer: Any) -> bytes | None:
        """Return the answer's bytes, or None to go the slow way."""
        raise NotImplementedError

    def finish(self, raw: bytes | None) -> None:
        """Send the answer; without one the slow way makes it."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self.lane.under_way -= 1
            connection.answered(raw, self.data)

    def drop(self) -> None:
        """Forget the client: it is gone."""
        if self.connection is not None:
            self.connection = None
            self.lane.under_way -= 1
