"""Loads the scripts and queries that stand beside the code as files, one verb a file."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

_CORE: Final = Path(__file__).resolve().parent.parent


@cache
def text(path: str) -> str:
    """Return a .lua or .sql file of the core; ``path`` is relative to ``core/``, e.g. ``sale/orders/place.lua``."""
    return (_CORE / path).read_text(encoding="utf-8")


# What verbs stand on: place on the first, who moves orders that are there on the second.
SHARD_GROUND: Final = ("sale/orders/shard.lua", "sale/orders/finished.lua")
ORDERS_GROUND: Final = (*SHARD_GROUND, "sale/orders/orders.lua")


class Script:
    """One Lua verb with the ground it stands on in front, and the SHA-1 it is called by.

    Everything in front is run anew with every call, so a verb stands on no more than it needs.
    """

    __slots__ = ("name", "sha", "source")

    def __init__(self, path: str, *grounds: str) -> None:
        self.name = Path(path).stem
        self.source = "\n".join(map(text, (*grounds, path)))
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
