"""The journal as the projector reads it: entries behind a cursor, on a connection that never reconnects in silence."""

from __future__ import annotations

from typing import Final

from core.backends.valkey import ROOT, ShardConnection
from core.facts import parts
from core.sale.orders.entry import Entry

FACTS: Final = f"{ROOT}:facts"
_STEP: Final = 8  # entries of a first read, whose size is not known


class Intake:
    """The journal behind a cursor, taken in portions that fit one transaction; every entry is read once.

    An entry holds one record or a thousand, so how many entries to ask for follows from how large the last ones were,
    and grows step by step: a thousand large ones would be a reply of a hundred megabytes, in which Valkey does nothing
    else, and a few small ones a transaction that is not worth its price.
    """

    def __init__(self, connection: ShardConnection, cursor: tuple[int, int], records_most: int) -> None:
        """Begin behind ``cursor``; a portion has up to ``records_most`` records, unless one entry holds more."""
        self._connection, self._read_to, self._most = connection, cursor, records_most
        self._ahead: list[Entry] = []  # read and not yet taken
        self._records = 0  # of those
        self._step = _STEP  # entries the next read may ask for
        self._size = 1.0  # records of an entry, on average of the last read
        self._full = False  # the last read may have left entries behind

    @property
    def is_behind(self) -> bool:
        """Whether more waits than was taken last."""
        return self._full or bool(self._ahead)

    async def take(self, block_ms: int) -> list[Entry]:
        """Return the next entries, waiting up to ``block_ms`` for the first one."""
        if self._records < self._most:
            await self._read(0 if self._ahead else block_ms)
        fit, records = _fitting(self._ahead, self._most)
        portion, self._ahead = self._ahead[:fit], self._ahead[fit:]
        self._records -= records
        return portion

    async def _read(self, block_ms: int) -> None:
        most = max(1, min(self._step, round((self._most - self._records) / self._size)))
        new = await read_after(self._connection, self._read_to, most, block_ms)
        self._full, self._step = len(new) == most, _STEP + 4 * len(new)
        if new:
            records = sum([len(entry.records) for entry in new])
            self._size = max(1.0, records / len(new))
            self._read_to = (new[-1].ms, new[-1].seq)
            self._ahead += new
            self._records += records


def _fitting(entries: list[Entry], records_most: int) -> tuple[int, int]:
    """Return how many of the first entries fit, at least one, and how many records they have."""
    records = 0
    for number, entry in enumerate(entries):
        size = len(entry.records)
        if number and records + size > records_most:
            return number, records
        records += size
    return len(entries), records


async def read_after(connection: ShardConnection, cursor: tuple[int, int], most: int, block_ms: int) -> list[Entry]:
    """Return up to ``most`` entries behind the cursor, waiting up to ``block_ms`` for the first; 0 waits for none."""
    after = f"{cursor[0]}-{cursor[1]}"
    block = ("BLOCK", block_ms) if block_ms else ()
    reply = await connection.command("XREAD", "COUNT", most, *block, "STREAMS", FACTS, after)
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
    records: list[bytes] = []
    for record in fields:  # type: ignore[has-type]
        if len(record) > 1:  # see shard.lua; once a field was ``r``
            records += parts(record)
    return Entry(int(ms), int(seq), records)


def next_id(ms: int, seq: int) -> str:
    """Return the smallest stream id behind (ms, seq)."""
    return f"{ms}-{seq + 1}"


def parse_id(text: bytes) -> tuple[int, int]:
    """Return (ms, seq) of a stream id."""
    ms, _, seq = text.decode().partition("-")
    return int(ms), int(seq or 0)
