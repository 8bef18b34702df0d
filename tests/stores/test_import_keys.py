"""The import of card keys: all or nothing, encrypted, and on sale exactly once whatever dies on the way."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from shop import Shop, a_shop, run, until

from core.backends import postgres
from core.backends.valkey import ROOT, ShardConnection
from core.errors import BadInput, FlashproofError, StoreUnavailable, StoreUnknown
from core.local.stores import LocalStores
from core.sale.catalog import import_keys as module
from core.sale.catalog import store as catalog_store
from core.sale.catalog.import_keys import Imported, import_keys
from core.sale.catalog.keyfile import BadKeyFile
from core.sale.delivery.vault import VaultLocked
from core.settings import KEY_BYTES_MOST, to_environment

OPENED = "SELECT id, sealed FROM card_keys ORDER BY id"


async def keys(shop: Shop) -> list[str]:
    """Return every card key in the store, opened, in the order of the files."""
    return [shop.vault.open(row, sealed).reveal() for row, sealed in await shop.rows(OPENED)]


async def refused(shop: Shop, content: bytes, sku: str = "HOT") -> str:
    """Import what must be refused without a trace; return the message."""
    before, free = await shop.record(), await shop.free()
    with pytest.raises(BadInput) as caught:
        await shop.bring(sku, shop.file(content))
    after = await shop.record()
    assert {name: rows for name, rows in after.items() if rows != before[name]} == {}
    assert await shop.free() == free
    return str(caught.value)


def test_files_as_shops_save_them_are_imported_key_by_key(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: a BOM, a carriage return or half a `card----password` line delivered to a buyer."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop:
            content = "\ufeffAAAA-1\r\n\r\n card-2----p@ss 密码 \r\n  \r\nAAAA-3----x----y".encode()
            done = await shop.bring("HOT", shop.file(content))
            assert done == Imported(import_id=2, units=3, new=True, raised=True, free=4)
            assert (await keys(shop))[1:] == ["AAAA-1", "card-2----p@ss 密码", "AAAA-3----x----y"]
            lines = [row & (2**20 - 1) for (row,) in await shop.rows("SELECT id FROM card_keys ORDER BY id")]
            assert lines == [1, 1, 3, 5]
            await shop.drain()
            await shop.check()

    run(test)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file holds no key"),
        (b"\xef\xbb\xbf\r\n\r\n", "the file holds no key"),
        (b"A\nB\nA\n", "line 3 repeats line 1"),
        (b"A\n\nB\r\n A\nB", "line 4 repeats line 1; line 5 repeats line 3"),
        (b"A\n\nHOT-0-000001\nB\nHOT-0-000000", "line 3 is in the store already (SKU HOT); line 5 is in the store"),
        (b"A\nB\xffC\n", "line 2: not UTF-8 (byte 2)"),
        (b"A\nB\x00C\n", "line 2: holds a control character"),
        (b"A\nB\n" + b"x" * (KEY_BYTES_MOST + 1), "line 3: longer than 1,024 bytes"),
        ("A\nB\n".encode("utf-16"), "line 1: the file is UTF-16"),
        (b"A\ncard----\n", "line 2: one side of ---- is empty"),
        (b"\n".join(b"ok-%d" % n for n in range(30_000)) + b"\n\x01", "line 30001: holds a control character"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_file_is_refused_by_line_and_nothing_of_it_is_imported(
    stores: LocalStores, tmp_path: Path, content: bytes, says: str
) -> None:
    """Stops: half a file imported before its bad line was met; the same key sold twice."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=3) as shop:
            assert says in await refused(shop, content)

    run(test)


def test_keys_of_another_product_are_duplicates_too_and_ten_are_named(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: one key sold under two products; a message of a million lines."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=30) as shop:
            await shop.add("COLD")
            said = await refused(shop, b"new\n" + b"".join(b"HOT-0-%06d\n" % n for n in range(12)), "COLD")
            assert said.startswith("line 2 is in the store already (SKU HOT); line 3")
            assert said.endswith("line 11 is in the store already (SKU HOT); and more")
            assert "flashproof product add GONE" in await refused(shop, b"A\n", "GONE")

    run(test)


def test_the_same_file_again_changes_nothing_and_says_so(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: stock raised again by an operator who is not sure whether the first time worked."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop:
            first = await shop.bring("HOT", shop.file(b"A\nB\nC"))
            await shop.drain()
            before = await shop.record()
            for content in (b"A\nB\nC", b"\xef\xbb\xbfA\r\nB\r\nC\r\n"):
                again = await shop.bring("HOT", shop.file(content))
                assert again == Imported(first.import_id, units=3, new=False, raised=False, free=4)
            assert await shop.record() == before
            assert await shop.client.xlen(f"{ROOT}:facts") == 0

    run(test)


@pytest.mark.parametrize("where", ["before the raise", "after the raise"])
def test_an_import_that_dies_around_its_raise_is_raised_once_when_run_again(
    stores: LocalStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Stops: keys committed and never on sale; or a counter raised twice for one file: oversell."""
    real = module.raise_units

    async def die(*arguments: Any) -> tuple[str, int]:
        if where == "after the raise":
            await real(*arguments)
        raise StoreUnknown

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop:
            path = shop.file([f"K{n}" for n in range(5)])
            with monkeypatch.context() as patch:
                patch.setattr(module, "raise_units", die)
                with pytest.raises(StoreUnknown):
                    await shop.bring("HOT", path)
            again = await shop.bring("HOT", path)
            assert (again.new, again.raised, again.free) == (False, where == "before the raise", 6)
            assert await shop.free() == 6
            await shop.drain()
            await shop.check()

    run(test)


def test_an_import_whose_command_never_comes_back_is_raised_by_the_projector(
    stores: LocalStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: keys that wait for an operator who does not know that the command died."""

    async def die(*_: Any) -> tuple[str, int]:
        raise StoreUnavailable

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop, shop.projector():
            with monkeypatch.context() as patch:
                patch.setattr(module, "raise_units", die)
                with pytest.raises(StoreUnavailable):
                    await shop.bring("HOT", shop.file(b"A\nB"))
            await until(lambda: has(shop, 3), "the projector has raised the units")
            await shop.projected()
            again = await shop.bring("HOT", shop.file(b"A\nB"))
            assert (again.new, again.raised, again.free) == (False, False, 3)
            await shop.check()

    async def has(shop: Shop, units: int) -> bool:
        return await shop.free() == units

    run(test)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_import_that_dies_before_its_commit_leaves_nothing(
    stores: LocalStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Stops: part of a file in the store, whose other part is then "in the store already"."""
    monkeypatch.setattr(catalog_store, "_COPY_ROWS", 10)
    real, copied = catalog_store._copy, 0

    async def die(*arguments: Any) -> int:
        nonlocal copied
        if copied == after:
            raise ConnectionResetError("killed")
        copied += 1
        return await real(*arguments)

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop:
            path = shop.file([f"K{n}" for n in range(25)])
            before = await shop.record()
            with monkeypatch.context() as patch:
                patch.setattr(catalog_store, "_copy", die)
                with pytest.raises(ConnectionResetError):
                    await shop.bring("HOT", path)
            assert await shop.record() == before
            assert (await shop.bring("HOT", path)).free == 26
            await shop.drain()
            await shop.check()

    run(test)


def test_selling_may_be_closed_while_keys_come_in(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: an import before the first opening, or during a fence, that fails, or whose units are lost or doubled."""

    async def test() -> None:
        async with a_shop(stores, tmp_path) as shop:
            await shop.add()
            done = await shop.stock(4)
            assert (done.new, done.raised, done.free) == (True, False, None)
            assert await shop.free() == 0
            await shop.open()
            await shop.drain()
            assert await shop.free() == 4
            await shop.check()

    run(test)


def test_an_import_for_a_product_valkey_has_not_heard_of_says_so(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: "stock was raised before, 0 free", when `product add` had died between the two stores."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop:
            await shop.client.delete(f"{ROOT}:sku:HOT")
            path = shop.file(b"A\nB")
            with pytest.raises(FlashproofError, match="flashproof product add HOT"):
                await shop.bring("HOT", path)
            await shop.add()
            again = await shop.bring("HOT", path)
            assert (again.new, again.raised, again.free) == (False, True, 2)

    run(test)


def test_two_commands_with_the_same_file_at_once_raise_its_units_once(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: two impatient operators; each must be told the truth, and the keys are there once."""

    async def bring(shop: Shop, path: Path) -> Imported | BadInput:
        connection = await postgres.connect(shop.settings.postgres_dsn)
        shard = ShardConnection(shop.settings.valkey_url)
        try:
            return await import_keys(connection, shard, shop.names, shop.vault, "HOT", path)
        except BadInput as error:
            return error
        finally:
            await shard.close()
            connection.terminate()

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop:
            path = shop.file([f"K{n}" for n in range(2_000)])
            found = await asyncio.gather(*[bring(shop, path) for _ in range(4)])
            done = [one for one in found if isinstance(one, Imported)]
            assert sum(one.raised for one in done) == 1
            assert all("run this again" in str(one) or isinstance(one, BadKeyFile | Imported) for one in found)
            assert await shop.free() == 2_001
            await shop.drain()
            await shop.check()

    run(test)


def test_card_keys_are_nowhere_on_disk_in_clear_and_open_in_their_own_row_only(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: a stolen backup, disk or database dump that is a list of working card keys."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop:
            secret = "PLAINTEXT-marker-7f3a"
            await shop.bring("HOT", shop.file([f"{secret}-{n}----pw" for n in range(50)]))
            (order_id,) = await shop.sell(shop.item("ann", quantity=3))
            await shop.pay(order_id, quantity=3)
            await shop.drain()
            assert secret in (await shop.keys_of(order_id))[1]
            rows = await shop.rows("SELECT card_keys::text, sealed FROM card_keys")
            assert not [row for row in rows if secret in row[0] or secret.encode() in row[1]]
            await shop.connection.execute("CHECKPOINT")
            for home in (stores.postgres.home / "data", stores.valkey.home):
                files = [path for path in home.rglob("*") if path.is_file()]
                assert files
                assert not [path.name for path in files if secret.encode() in path.read_bytes()]

            (one, sealed), (other, _) = await shop.rows(OPENED + " LIMIT 2")
            await shop.connection.execute("UPDATE card_keys SET sealed = $1 WHERE id = $2", sealed, other)
            with pytest.raises(VaultLocked):
                shop.vault.open(*(await shop.rows(OPENED + " LIMIT 2"))[1])
            assert shop.vault.open(one, sealed)

    run(test)


def test_a_large_file_is_imported_in_steps_that_are_told(stores: LocalStores, tmp_path: Path) -> None:
    """Stops: an import that holds everything at once, or that nobody can tell from a hung one."""

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop:
            told: list[tuple[str, int, int]] = []
            content = "".join(f"{n:08d}-{n * 7919:012x}\r\n" for n in range(50_000)).encode()
            began = time.monotonic()
            done = await shop.bring("HOT", shop.file(content), progress=lambda *step: told.append(step))
            assert time.monotonic() - began < 20
            assert (done.units, done.free) == (50_000, 50_001)
            assert told == [("reading", 0, 1), ("reading", 1, 1)] + [
                ("sealing", so_far, 50_000) for so_far in (20_000, 40_000, 50_000)
            ]
            assert await shop.rows("SELECT count(*), count(DISTINCT key_hash) FROM card_keys") == [(50_001, 50_001)]

    run(test)


def test_the_command_killed_at_any_instant_and_run_again_raises_exactly_once(
    stores: LocalStores, tmp_path: Path
) -> None:
    """Stops: SIGKILL between any two steps of the real command: keys lost, doubled, or counted twice."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)

    def command(shop: Shop, sku: str, path: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "core", "keys", "import", sku, str(path)]
        env = {**os.environ, **to_environment(shop.settings)}
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    async def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
        output, _ = await asyncio.to_thread(process.communicate, timeout=30)
        return process.returncode, output.decode()

    async def test() -> None:
        async with a_shop(stores, tmp_path, units=1) as shop:
            await shop.add("OTHER")
            began = time.monotonic()
            other = shop.file([f"other-{n}" for n in range(20_000)])
            assert await finish(command(shop, "OTHER", other)) == (
                0,
                "OTHER: 20,000 keys imported; stock raised to 20,000\n",
            )
            whole_s = time.monotonic() - began
            path = shop.file([f"killed-{n}" for n in range(20_000)])
            for _ in range(3):
                process = command(shop, "HOT", path)
                await asyncio.sleep(whole_s * chance.uniform(0.4, 1.0))
                process.kill()
                await finish(process)
                assert await shop.rows("SELECT count(*) FROM card_keys WHERE sku = 'HOT'") in ([(1,)], [(20_001,)])
                assert await shop.free() in (1, 20_001)
            code, said = await finish(command(shop, "HOT", path))
            assert code == 0
            assert "20,001" in said
            assert await shop.rows("SELECT count(*) FROM imports WHERE sku = 'HOT'") == [(2,)]
            assert await shop.free() == 20_001
            await shop.drain()
            await shop.check()

    run(test)
