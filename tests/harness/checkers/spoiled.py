"""One thing changed in honest evidence: rows dropped, added or altered, parts replaced."""

from __future__ import annotations

from typing import Any

import msgspec

from loadtests.record.evidence import Evidence, PostgresState, ValkeyState

_STORE_OF = dict.fromkeys(PostgresState.__struct_fields__, "postgres") | dict.fromkeys(
    ValkeyState.__struct_fields__, "valkey"
)


def spoil(evidence: Evidence, **changed: Any) -> Evidence:
    """Return the evidence with these parts replaced, wherever they stand (attempts, orders, events, free, …)."""
    for name, value in changed.items():
        if name in _STORE_OF:
            store = _STORE_OF[name]
            inner = msgspec.structs.replace(getattr(evidence, store), **{name: value})
            evidence = msgspec.structs.replace(evidence, **{store: inner})
        else:
            evidence = msgspec.structs.replace(evidence, **{name: value})
    return evidence


def rows(evidence: Evidence, name: str) -> list[Any]:
    """Return a copy of one list of the evidence by its name."""
    holder = getattr(evidence, _STORE_OF[name]) if name in _STORE_OF else evidence
    return list(getattr(holder, name))


def without(evidence: Evidence, name: str, *where: Any) -> Evidence:
    """Return the evidence less the rows that are in ``where``."""
    return spoil(evidence, **{name: [row for row in rows(evidence, name) if row not in where]})


def with_more(evidence: Evidence, name: str, *more: Any) -> Evidence:
    """Return the evidence with rows added."""
    return spoil(evidence, **{name: [*rows(evidence, name), *more]})


def altered(evidence: Evidence, name: str, row: Any, **fields: Any) -> Evidence:
    """Return the evidence with one row's fields changed."""
    new = msgspec.structs.replace(row, **fields)
    return spoil(evidence, **{name: [new if old is row else old for old in rows(evidence, name)]})


def pick(evidence: Evidence, name: str, **fields: Any) -> Any:
    """Return the first row of that list whose fields are these."""
    return next(row for row in rows(evidence, name) if all(getattr(row, f) == v for f, v in fields.items()))
