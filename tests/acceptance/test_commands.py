"""The commands: help for each, one clear line for each mistake, exit code 64 for bad usage, and nothing half done."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import redis

from core.__main__ import EXIT_USAGE, VERBS, main
from core.local.server import wait_until
from core.local.stores import LocalStores
from core.settings import Settings, to_environment
from loadtests.shop.deployment import CORE, free_ports

if TYPE_CHECKING:
    from conftest import Shop

PATIENCE_S = 20.0


class Ran:
    """What a command left: exit code, standard output, standard error."""

    def __init__(self, code: int, said: str, complained: str) -> None:
        self.code, self.said, self.complained = code, said, complained

    def refused(self, code: int, *words: str) -> None:
        """Assert that it ended with this code, and one line that holds these words and no trace."""
        assert (self.code, self.said) == (code, ""), vars(self)
        assert self.complained.endswith("\n")
        assert self.complained.count("\n") == 1, self.complained
        assert self.complained.startswith("flashproof ")
        for word in words:
            assert word in self.complained


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Stores of our own, empty but for the schema; nothing serves and nothing works on them."""
    with LocalStores(tmp_path_factory.mktemp("commands")) as stores:
        port, ops_port, work_ops_port = free_ports(3)
        yield Settings(
            valkey_url=stores.valkey_url,
            postgres_dsn=stores.postgres_dsn,
            secret=b"s" * 32,
            vault_key=b"v" * 32,
            sandbox_secret=b"b" * 32,
            port=port,
            ops_port=ops_port,
            work_ops_port=work_ops_port,
        )
        stores.remove()


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on those stores, with some variables changed (None: not set)."""

    def call(*argv: str, **changed: str | None) -> Ran:
        for name, value in (to_environment(settings) | changed).items():
            monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
        capsys.readouterr()
        code = main(argv)
        out = capsys.readouterr()
        return Ran(code, out.out, out.err)

    return call


@pytest.fixture
def product(run: Run) -> str:
    """A product to import keys for, on migrated stores."""
    assert run("migrate").code == 0
    assert run("product", "add", "gold", "--price", "19.99").code == 0
    return "gold"


def counts(shop: Shop, settings: Settings) -> tuple[int, int, int, int]:
    """Return products, imports, keys and free units of those stores."""
    books = type(shop.books)(settings)
    try:
        tables = ("products", "imports", "card_keys")
        found = [books.value(f"SELECT count(*) FROM {table}") for table in tables]
        return found[0], found[1], found[2], books.free("gold")
    finally:
        books.close()


def spawn(settings: Settings, *argv: str) -> subprocess.Popen[str]:
    """Start a command as a process."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLASHPROOF_")}
    return subprocess.Popen(
        [*CORE, *argv],
        env=env | to_environment(settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> Ran:
    """Wait for a command's end, within bounds."""
    try:
        said, complained = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return Ran(process.returncode, said, complained)


def test_the_overview_names_every_verb(run: Run) -> None:
    """Stops: a verb that nobody finds."""
    for argv in (["--help"], ["-h"], ["help"]):
        overview = run(*argv)
        assert overview.code == 0
        assert all(f"  {verb} " in overview.said and VERBS[verb].meaning in overview.said for verb in VERBS)
    assert run("--version").said.startswith("flashproof ")
    assert run().code == EXIT_USAGE


def test_every_verb_explains_itself(settings: Settings) -> None:
    """Stops: `--help` that starts a server, needs a store, or fails on an import."""
    started = {verb: spawn(settings, verb, "--help") for verb in VERBS}
    for verb, process in started.items():
        told = ended(process)
        assert (told.code, told.complained) == (0, ""), f"{verb}: {told.complained}"
        assert told.said.startswith("usage:"), verb


def test_an_unknown_verb_is_bad_usage(settings: Settings) -> None:
    """Stops: exit code 2, which here means that an invariant is broken."""
    told = ended(spawn(settings, "frobnicate"))
    assert told.code == EXIT_USAGE
    assert told.complained.startswith("flashproof: there is no verb 'frobnicate'\n")


@pytest.mark.parametrize(
    "argv",
    [
        ["serve", "--workers", "0"],
        ["serve", "--workers", "65"],
        ["serve", "--workers", "two"],
        ["serve", "--nothing"],
        ["work", "harder"],
        ["migrate", "down"],
        ["product"],
        ["product", "add"],
        ["keys", "import", "gold"],
        ["sandbox", "pay", "0" * 32, "--amount", "19.99"],
        ["sandbox", "pay", "0" * 32, "--amount", "-1"],
    ],
    ids=" ".join,
)
def test_bad_usage_ends_with_64(run: Run, argv: Sequence[str]) -> None:
    """Stops: bad usage taken for a broken invariant or for success by a script."""
    told = run(*argv)
    assert (told.code, told.said) == (EXIT_USAGE, "")
    assert told.complained


@pytest.mark.parametrize("verb", ["migrate", "serve", "work", "keys", "product", "sandbox"])
@pytest.mark.parametrize("field", ["VALKEY_URL", "POSTGRES_DSN", "SECRET", "VAULT_KEY"])
def test_a_missing_setting_is_one_clear_line(run: Run, tmp_path: Path, verb: str, field: str) -> None:
    """Stops: a KeyError's trace for a forgotten variable; a default secret."""
    rest = {
        "keys": ["import", "gold", str(tmp_path / "keys.txt")],
        "product": ["add", "gold", "--price", "1"],
        "sandbox": ["pay", "0" * 32, "--amount", "1"],
    }
    told = run(verb, *rest.get(verb, []), **{f"FLASHPROOF_{field}": None})
    told.refused(EXIT_USAGE, f"FLASHPROOF_{field} is not set")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"FLASHPROOF_SECRET": "***"}, "base64"),
        ({"FLASHPROOF_SECRET": base64.b64encode(b"short").decode()}, "at least 32 bytes"),
        ({"FLASHPROOF_VAULT_KEY": base64.b64encode(b"v" * 33).decode()}, "exactly 32 bytes"),
        ({"FLASHPROOF_PORT": "eighty"}, "FLASHPROOF_PORT"),
        ({"FLASHPROOF_PORT": "65536"}, "65535"),
        ({"FLASHPROOF_LOG_LEVEL": "loud"}, "FLASHPROOF_LOG_LEVEL"),
        ({"FLASHPROOF_VALKEY_URL": "localhost:6379"}, "unix://"),
        ({"FLASHPROOF_POSTGRES_DSN": "mysql://x"}, "postgresql://"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_one_clear_line(run: Run, changed: dict[str, str], word: str) -> None:
    """Stops: a shop that starts with half a key."""
    run("serve", **changed).refused(EXIT_USAGE, word)


def test_an_unreachable_store_is_one_clear_line(run: Run, product: str, tmp_path: Path) -> None:
    """Stops: a library's trace, with the address and perhaps the password in it, for a server that is down."""
    nobody = free_ports(1)[0]
    dsn = f"postgresql://flashproof:very-secret@127.0.0.1:{nobody}/flashproof"
    told = run("migrate", FLASHPROOF_POSTGRES_DSN=dsn)
    told.refused(1, "PostgreSQL cannot be reached")
    assert "very-secret" not in told.complained
    valkey = f"redis://127.0.0.1:{nobody}/0"
    run("product", "add", product, "--price", "19.99", FLASHPROOF_VALKEY_URL=valkey).refused(
        1, "Valkey", "run this again"
    )
    (tmp_path / "keys.txt").write_text("UNREACHED-1\n")
    run("keys", "import", product, str(tmp_path / "keys.txt"), FLASHPROOF_VALKEY_URL=valkey).refused(
        1, "Valkey cannot be reached"
    )
    run("sandbox", "pay", "0" * 32, "--amount", "1").refused(1, "the shop does not answer")
    run("sandbox", "pay", "0" * 32, "--amount", "1", FLASHPROOF_SANDBOX_SECRET=None).refused(
        EXIT_USAGE, "FLASHPROOF_SANDBOX_SECRET is not set"
    )


def test_serve_and_work_wait_for_a_store_and_say_so(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: a boot order that everyone must get right; a process that hangs in silence, or stops and leaves litter."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    dsn = f"postgresql://flashproof@127.0.0.1:{free_ports(1)[0]}/flashproof"
    waiting = {verb: spawn(msgspec.structs.replace(settings, postgres_dsn=dsn), verb) for verb in ("serve", "work")}
    try:
        for verb, process in waiting.items():
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("waiting for the stores: PostgreSQL cannot be reached"), f"{verb}: {line}"
            time.sleep(0.5)
            assert process.poll() is None
    finally:
        for process in waiting.values():
            process.terminate()
            ended(process)
    assert 0 not in [process.returncode for process in waiting.values()]
    assert list(tmp_path.iterdir()) == []


def test_nothing_sells_on_unfit_stores(settings: Settings, run: Run) -> None:
    """Stops: `everysec`, which lost 85 of 1,413 acknowledged writes on a plain kill."""
    store = redis.Redis.from_url(settings.valkey_url)
    run("migrate")
    unfit = [("appendfsync", "everysec", "always"), ("maxmemory-policy", "allkeys-lru", "noeviction")]
    try:
        for name, wrong, right in unfit:
            store.config_set(name, wrong)
            started = {verb: spawn(settings, verb) for verb in ("serve", "work")}
            for verb, process in started.items():
                ended(process).refused(1, verb, "Valkey has", name, repr(wrong), repr(right))
            store.config_set(name, right)
    finally:
        for name, _, right in unfit:
            store.config_set(name, right)
        store.close()


def test_migrating_twice_changes_nothing(run: Run) -> None:
    """Stops: a deployment script that works once."""
    assert run("migrate").code == 0
    again = run("migrate")
    assert (again.code, again.said) == (0, "nothing to apply\n")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        (["--price", "-1"], "amount"),
        (["--price", "19.999"], "finer"),
        (["--price", "1e3"], "amount"),
        (["--price", ""], "amount"),
        (["--price", "999999999999", "--limit", "100"], "too high"),
        (["--currency", "cny"], "ISO 4217"),
        (["--currency", "YUAN"], "ISO 4217"),
        (["--limit", "0"], "limit"),
        (["--limit", "9" * 30], "limit"),
        (["--hold", "0.5"], "hold"),
        (["--hold", "nan"], "hold"),
        (["--hold", "inf"], "hold"),
        (["--opens-at", "tomorrow"], "tomorrow"),
        (["--opens-at", "2026-11-11T00:00:00"], "time zone"),
        (["--opens-at", "2026-11-12T00:00:00Z", "--closes-at", "2026-11-11T00:00:00Z"], "close"),
        (["--low", "-1"], "low"),
        (["--title", "t" * 201], "title"),
        (["--title", "\udcff"], "title"),
        (["--title", "a\nb"], "title"),
    ],
    ids=str,
)
def test_a_product_that_cannot_be_sold_is_refused(
    run: Run, product: str, settings: Settings, shop: Shop, changed: list[str], word: str
) -> None:
    """Stops: half a product: terms in one store and not in the other, or a sale nobody can ever buy from."""
    before = counts(shop, settings)
    terms = [] if "--price" in changed else ["--price", "19.99"]
    run("product", "add", "bad", *terms, *changed).refused(EXIT_USAGE, word)
    assert counts(shop, settings) == before


@pytest.mark.parametrize("sku", ["", "a b", "../gold", "金", "s" * 65, "-x"])
def test_a_sku_that_no_address_can_hold_is_refused(run: Run, product: str, sku: str) -> None:
    """Stops: a product nobody can ask for."""
    told = run("product", "add", "--price", "1", "--", sku)
    told.refused(EXIT_USAGE, "SKU")


BAD_FILES = {
    "nothing": (b"", "no key"),
    "blank lines": (b"\n \r\n\n", "no key"),
    "one key twice": (b"A-1\nA-2\n\nA-1\n", "line 4 repeats line 1"),
    "two keys twice": (b"A-1\nA-2\nA-2\nA-1\n", "line 3 repeats line 2; line 4 repeats line 1"),
    "another encoding": (b"A-1\nA-2\n\xff\xfe-3\n", "line 3: not UTF-8"),
    "UTF-16": ("A-1\n".encode("utf-16"), "line 1: the file is UTF-16"),
    "a control character": (b"A-1\nA\x002\n", "line 2: holds a control character"),
    "half a pair": (b"A-1----secret\nA-2----\n", "line 2: one side of ---- is empty"),
    "a long line": (b"A-1\n" + b"A" * 2_000 + b"\n", "line 2: longer than 1,024 bytes"),
    "a key of the store": (b"A-1\nSTORED-2\n", "line 2 is in the store already (SKU gold)"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_key_file_names_the_line_and_imports_nothing(
    run: Run, product: str, settings: Settings, shop: Shop, tmp_path: Path, name: str
) -> None:
    """Stops: half a file in the store, and an operator who must find one line in a million; a key in the message."""
    file = tmp_path / "keys.txt"
    file.write_bytes(b"STORED-1\nSTORED-2\n")
    assert run("keys", "import", product, str(file)).code == 0
    before = counts(shop, settings)
    content, words = BAD_FILES[name]
    file.write_bytes(content)
    told = run("keys", "import", product, str(file))
    told.refused(EXIT_USAGE, words)
    assert not {"A-1", "A-2", "STORED-2"} & set(told.complained.split())
    assert counts(shop, settings) == before


def test_a_key_file_needs_a_product_and_must_be_there(
    run: Run, product: str, settings: Settings, shop: Shop, tmp_path: Path
) -> None:
    """Stops: keys nobody can sell, and a trace for a mistyped name."""
    before = counts(shop, settings)
    file = tmp_path / "keys.txt"
    run("keys", "import", product, str(file)).refused(EXIT_USAGE, "keys.txt", "No such file")
    run("keys", "import", product, str(tmp_path)).refused(EXIT_USAGE, "directory")
    file.write_bytes(b"NEW-1\n")
    run("keys", "import", "silver", str(file)).refused(EXIT_USAGE, "there is no product silver")
    assert counts(shop, settings) == before


def test_a_key_file_is_imported_once_and_its_stock_raised_when_selling_opens(
    run: Run, product: str, settings: Settings, shop: Shop, tmp_path: Path
) -> None:
    """Stops: keys imported twice by a nervous operator, and a stock that is raised by each try."""
    before = counts(shop, settings)
    file = tmp_path / "keys.txt"
    file.write_bytes("\ufeffNEW-1----密码\r\n\r\nNEW-2----pw\r\nNEW-3".encode())
    first = run("keys", "import", product, str(file))
    assert (first.code, "3 keys imported; selling is closed" in first.said) == (0, True)
    again = run("keys", "import", product, str(file))
    assert (again.code, "this file's 3 keys were there already" in again.said) == (0, True)
    assert counts(shop, settings) == (before[0], before[1] + 1, before[2] + 3, before[3])
    worker = spawn(settings, "work")
    try:
        keys = counts(shop, settings)[2]
        assert wait_until(lambda: counts(shop, settings)[3] == keys, PATIENCE_S)
        last = run("keys", "import", product, str(file))
        assert (last.code, f"stock was raised before, {keys} free" in last.said) == (0, True)
    finally:
        worker.terminate()
        assert ended(worker).code == 0
