"""What must be true before a long-running process goes to work: stores that can be reached and that are fit."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from core.backends import postgres, valkey
from core.errors import StoreUnavailable
from core.settings import Settings

_PATIENCE_S: Final = 30.0
_AGAIN_S: Final = 0.25


async def wait_for_stores(settings: Settings) -> None:
    """Return when both stores answer and are fit; wait up to half a minute for one that is still starting.

    Raises:
        UnfitStore: at once; waiting would not mend it.
        StoreUnavailable: after the wait.
    """
    loop = asyncio.get_running_loop()
    until, told = loop.time() + _PATIENCE_S, False
    while True:
        try:
            await valkey.assert_fit(settings.valkey_url)
            connection = await postgres.connect(settings.postgres_dsn)
            try:
                await postgres.assert_fit(connection)
            finally:
                connection.terminate()
        except StoreUnavailable as error:
            if loop.time() > until:
                raise
            if not told:
                told = True
                sys.stderr.write(f"waiting for the stores: {error}\n")
            await asyncio.sleep(_AGAIN_S)
        else:
            return
