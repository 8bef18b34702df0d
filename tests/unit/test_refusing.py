"""Those who were refused are told: each once, the gone for nothing, and one fault holds up nobody."""

from __future__ import annotations

import asyncio

from core.web.refusing import Refusing


def test_the_gone_take_nobodys_turn() -> None:
    """Stops: a queue whose head is clients that gave up, so that those who still listen are told later and later."""
    told: list[int] = []

    async def test() -> None:
        refusing: Refusing[int] = Refusing(told.append, lambda: 0, gone=lambda one: one < 1_000)
        for one in (*range(1_000), 1_000):
            refusing.add(one)
        await asyncio.sleep(0.02)

    asyncio.run(test())
    assert told == [1_000]


def test_one_that_cannot_be_told_leaves_the_others_in_their_turn() -> None:
    """Stops: refused buyers who never hear anything, because the timer was lost with one fault."""
    told: list[int] = []

    def tell(one: int) -> None:
        if one == 0:
            raise RuntimeError("a fault of ours")
        told.append(one)

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        refusing: Refusing[int] = Refusing(tell, lambda: 0)
        for one in range(5):
            refusing.add(one)
        await asyncio.sleep(0.1)

    asyncio.run(test())
    assert told == [1, 2, 3, 4]
