"""Those who were refused are told: each once, the gone for nothing, and one fault holds up nobody."""

from __future__ import annotations

import asyncio

from core.web.refusing import Refusing


def test_the_gone_take_nobodys_turn() -> None:
    """Stops: a queue whose head is clients that gave up, so that those who still listen are told later and later."""
    told: list[int] = []

    async def test() -> None:
        refusing: Refusing[int] = Refusing(told.extend, lambda: 0, gone=lambda one: one < 1_000)
        refusing.add(range(1_001))
        await asyncio.sleep(0.02)

    asyncio.run(test())
    assert told == [1_000]


def test_a_fault_in_one_turn_leaves_the_others_theirs() -> None:
    """Stops: refused buyers who never hear anything, because the timer was lost with one fault."""
    told: list[int] = []

    def tell(some: list[int]) -> None:
        if 0 in some:
            raise RuntimeError("a fault of ours")
        told.extend(some)

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        refusing: Refusing[int] = Refusing(tell, lambda: 0)
        refusing.add(range(1_000))
        await asyncio.sleep(0.2)

    asyncio.run(test())
    assert told == list(range(1_000 - len(told), 1_000)), "but for those of the turn it befell"
    assert len(told) >= 1_000 - 150
