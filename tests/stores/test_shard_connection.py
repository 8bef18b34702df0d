"""One connection to Valkey with several calls under way: each gets its own answer, or is told that nobody knows."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shop import a_shop, run

from core.backends.valkey import ShardConnection
from core.errors import StoreUnknown
from core.local.stores import LocalStores


def test_calls_that_follow_each_other_get_each_their_own_answer(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: answers that change hands, and a connection for each call that finds none."""

    async def test() -> None:
        async with a_shop(stores, tmp_path) as shop:
            before = len(await shop.client.client_list())
            shard = ShardConnection(stores.valkey_url)
            said = await asyncio.gather(*[shard.command("ECHO", f"{n}") for n in range(200)])
            assert said == [b"%d" % n for n in range(200)]
            assert len(await shop.client.client_list()) == before + 1
            await shard.close()

    run(test)


def test_a_lost_connection_is_unknown_to_all_who_wait_on_it_and_the_next_call_makes_another(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: a caller that waits for ever, a late answer taken for another's, a new connection closed with the old."""

    async def test() -> None:
        async with a_shop(stores, tmp_path) as shop:
            shard = ShardConnection(stores.valkey_url)
            number = int(await shard.command("CLIENT", "ID"))
            waiting = [asyncio.create_task(shard.command("BLPOP", f"nothing-{n}", 0)) for n in range(3)]
            await asyncio.sleep(0.02)
            await shop.client.execute_command("CLIENT", "KILL", "ID", number)
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(end) for end in ends] == [StoreUnknown] * 3
            assert await shard.command("ECHO", "here") == b"here"
            assert int(await shard.command("CLIENT", "ID")) != number
            await shard.close()

    run(test)
