"""A body names each field once.

JSON leaves open what a name that stands twice means (RFC 8259, section 4), so two readers of one body may see two
orders: a proxy that counts units and a shop that sells them. msgspec takes the last one in silence.
"""

from __future__ import annotations

import json


def repeated_field(body: bytes, quotes: int) -> str | None:
    """Return a field that a flat, decoded JSON object names twice, or None.

    Args:
        body: what was decoded without an error.
        quotes: how many quotation marks its names and texts need at least. A body with no more names nothing twice and
            is not looked through, so an ordinary order pays for counting alone.
    """
    if body.count(b'"') <= quotes:
        return None
    names = [name for name, _ in json.loads(body, object_pairs_hook=list)]
    return next((name for number, name in enumerate(names) if name in names[:number]), None)
