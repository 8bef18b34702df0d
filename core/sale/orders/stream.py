"""The journal as the projector reads it: entries behind a cursor, on a connection that never reconnects in silence."""

from __future__ import annotations

from typing import Final

from core.backends.valkey import ROOT, ShardConnection
from core.sale.orders.entry import Entry

FACTS: Final = f"{ROOT}:facts"


async def read_after(connection: ShardConnection, cursor: tuple[int, int], most: int, block_ms: int) -> list[Entry]:
    """Return up to ``most`` entries behind the cursor, waiting up to ``block_ms`` for the first."""
    after = f"{cursor[0]}-{cursor[1]}"
    reply = await connection.command("XREAD", "COUNT", most, "BLOCK", block_ms, "STREAMS", FACTS, after)
    if not reply:
        return []
    streams = reply.values() if isinstance(reply, dict) else [pair[1] for pair in reply]
    return [_entry(raw) for stream in streams for raw in _flat(stream)]


async def read_through(connection: ShardConnection, cursor: tuple[int, int], most: int) -> list[Entry]:
    """Return up to ``most`` entries from the journal's beginning through the cursor: projected, not yet trimmed."""
    reply = await connection.command("XRANGE", FACTS, "-", f"{cursor[0]}-{cursor[1]}", "COUNT", most)
    return [_entry(raw) for raw in reply or []]


def _flat(stream: list[object]) -> list[object]:
    """RESP3 wraps a stream's entries once more than RESP2."""
    if stream and isinstance(stream[0], list) and stream[0] and isinstance(stream[0][0], list):
        return stream[0]
    return stream


def _entry(raw: object) -> Entry:
    name, fields = raw  # type: ignore[misc]
    ms, _, seq = name.decode().partition("-")  # type: ignore[has-type]
    records = [value for field, value in zip(fields[::2], fields[1::2], strict=True) if field == b"r"]  # type: ignore[has-type]
    return Entry(int(ms), int(seq), records)


def next_id(ms: int, seq: int) -> str:
    """Return the smallest stream id behind (ms, seq)."""
    return f"{ms}-{seq + 1}"


def parse_id(text: bytes) -> tuple[int, int]:
    """Return (ms, seq) of a stream id."""
    ms, _, seq = text.decode().partition("-")
    return int(ms), int(seq or 0)
