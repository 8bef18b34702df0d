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


class Script:
    """One Lua verb with the ground it stands on (``shard.lua``) in front, and the SHA-1 it is called by."""

    __slots__ = ("name", "sha", "source")

    def __init__(self, path: str) -> None:
        self.name = Path(path).stem
        self.source = text("sale/orders/shard.lua") + "\n" + text(path)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
