"""The core as a target: its HTTP, version 1, as ``/openapi.json`` has it."""

from __future__ import annotations

import msgspec

from core.clock import iso8601
from loadtests.generator import contract
from loadtests.generator.contract import Reply, Wire
from loadtests.targets import Answer, Call, Notice


class Core:
    """Speaks to Flashproof's own core, with the sandbox gateway's callbacks."""

    lacks: frozenset[str] = frozenset()

    def __init__(self, authority: str, sandbox_secret: bytes) -> None:
        """Take ``host:port`` and the secret shared with the sandbox gateway."""
        self._wire, self._secret = Wire(authority), sandbox_secret
        self.place, self.track, self.cancel = self._wire.place, self._wire.track, self._wire.cancel
        self.browse = self._wire.browse

    def pay(self, notice: Notice) -> bytes:
        """Return the sandbox gateway's signed callback; the same notice gives the same body each time."""
        body = msgspec.json.encode(
            {
                "event_id": notice.event_id,
                "order_id": notice.order_id,
                "amount": notice.amount,
                "currency": notice.currency,
                "status": notice.status,
                "paid_at": iso8601(notice.paid_at_ms),
            }
        )
        return self._wire.callback(body, contract.sign(self._secret, body, notice.sent_s))

    def read(self, call: Call, reply: Reply) -> Answer:
        """Return what an answer says; an unreadable success is unknown."""
        result, outcome = contract.judge(reply)
        if result != "ok":
            return Answer(result, outcome)
        if call == "place":
            placed = contract.read_placed(reply) if reply.status in (200, 201) else None
            if placed is not None:
                return Answer("ok", "accepted" if reply.status == 201 else "replayed", placed[0], (), placed[1])
        elif call == "pay":
            told = contract.read_callback(reply)
            if told is not None:
                return Answer("ok", told)
        elif call == "browse":
            seen = contract.read_stock(reply)
            if seen is not None:
                return Answer("ok", seen)
        else:
            tracked = contract.read_tracked(reply)
            if tracked is not None:
                return Answer("ok", tracked[0], None, tuple(tracked[1]))
        return Answer("unknown", contract.MALFORMED)
