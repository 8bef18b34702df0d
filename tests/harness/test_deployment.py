"""A deployment comes up whole, comes back from every kill, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # comes with locust
import pytest
import redis

from core.errors import BadInput, Fault
from core.local.restarts import Restarts
from core.local.server import wait_until
from core.local.stores import LocalStores
from core.settings import Settings
from loadtests.shop import deployment as module
from loadtests.shop.deployment import Deployment, free_ports
from loadtests.shop.parts import cpu_seconds

# Stands in for `python -m core`: the same verbs, ports, signals and workers, and none of the shop.
STAND_IN = """
import http.server, os, signal, subprocess, sys, threading, time
verb, journal = sys.argv[1], os.environ["JOURNAL"]

def note(word):
    with open(journal, "a") as file:
        file.write(f"{verb} {word}\\n")

if verb == "migrate":
    note("done")
elif verb in ("serve", "work"):
    assert os.environ["FLASHPROOF_POSTGRES_DSN"] and os.environ["FLASHPROOF_VAULT_KEY"]
    port = int(os.environ["FLASHPROOF_OPS_PORT" if verb == "serve" else "FLASHPROOF_WORK_OPS_PORT"])
    count = int(sys.argv[3]) if verb == "serve" else 0
    workers = [subprocess.Popen([sys.executable, __file__, "worker"]) for _ in range(count)]
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/readyz" else 404)
            self.end_headers()
        def log_message(self, *args):
            pass
    def leave(*_):
        for worker in workers:
            worker.terminate()
        note("stopped")
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("STUBBORN") == verb else leave)
    if os.environ.get("BROKEN") == verb:
        sys.exit("cannot go on")
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
elif verb == "worker":
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    time.sleep(60)
elif verb == "product":
    print("added", *sys.argv[2:])
else:
    sys.exit("no such verb")
"""

Shop = Callable[..., Deployment]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """What the stand-ins wrote down."""
    return tmp_path / "journal"


@pytest.fixture
def shop(tmp_path: Path, journal: Path, stores: LocalStores) -> Iterator[Shop]:
    """Makes deployments of stand-ins; on the tests' common stores unless a test wants private ones."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    made: list[Deployment] = []

    def make(*, private: bool = False, **environment: str) -> Deployment:
        port, ops_port, work_ops_port = free_ports(3)
        common = Settings(
            valkey_url=stores.valkey_url,
            postgres_dsn=stores.postgres_dsn,
            secret=b"s" * 32,
            vault_key=b"v" * 32,
            port=port,
            ops_port=ops_port,
            work_ops_port=work_ops_port,
        )
        made.append(
            Deployment(
                tmp_path / "run",
                workers=2,
                settings=None if private else common,
                launcher=[sys.executable, str(script)],
                environment={"JOURNAL": str(journal), **environment},
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.stop()


def family(pid: int | None) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    """Tell whether all have ended, within a bounded time."""
    return wait_until(
        lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes), 5
    )


def test_a_shop_comes_up_whole_and_goes_down_in_order_leaving_nothing(shop: Shop, journal: Path) -> None:
    with shop(private=True) as running:
        running.wait_ready(10)
        assert set(running.cpu_seconds()) == {"server", "worker", "valkey", "postgres"}
        everything = [one for what in ("serve", "work", "valkey", "postgres") for one in family(running.pid(what))]
        assert len(everything) > 6  # two workers and PostgreSQL's own among them
        with redis.Redis.from_url(running.settings.valkey_url) as client:
            assert client.ping()
    assert journal.read_text().splitlines() == ["migrate done", "serve stopped", "work stopped"]
    assert gone(everything)
    assert running.incidents == []
    assert not (running.directory / "stores" / "valkey").exists()
    for name in ("serve", "work", "valkey", "postgres"):
        assert (running.directory / "logs" / f"{name}.log").exists()


def test_whatever_is_killed_comes_back_and_is_written_down_as_planned(shop: Shop) -> None:
    with shop(private=True) as running:
        running.wait_ready(10)
        first = {what: running.pid(what) for what in ("serve", "work", "valkey", "postgres")}
        workers = family(running.pid("serve"))
        for what in first:
            assert running.kill(what)
        assert gone(workers), "serve's workers die with it"
        assert wait_until(lambda: all(running.pid(what) not in (None, pid) for what, pid in first.items()), 15)
        running.wait_ready(10)
        assert [(one.what, one.exit_code, one.planned) for one in running.incidents] == [
            (what, -signal.SIGKILL, True) for what in first
        ]
        assert running.unplanned == []


def test_a_part_that_dies_by_itself_comes_back_and_is_an_unplanned_incident(shop: Shop) -> None:
    with shop() as running:
        running.wait_ready(10)
        pid = running.pid("work")
        assert pid is not None
        os.kill(pid, signal.SIGSEGV)
        assert wait_until(lambda: running.pid("work") not in (None, pid), 5)
        running.wait_ready(10)
        assert [(one.what, one.exit_code) for one in running.unplanned] == [("work", -signal.SIGSEGV)]


def test_a_graceful_restart_lets_the_part_finish(shop: Shop, journal: Path) -> None:
    with shop() as running:
        running.wait_ready(10)
        assert running.restart("serve")
        assert "serve stopped" in journal.read_text()
        assert wait_until(lambda: running.pid("serve") is not None, 5)
        assert [(one.what, one.exit_code, one.planned) for one in running.incidents] == [("serve", 0, True)]


def test_a_part_that_keeps_dying_is_given_up_with_its_last_words(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Restarts", lambda: Restarts(most=2))
    running = shop(BROKEN="work")
    with running, pytest.raises(Fault, match="cannot go on"):
        running.wait_ready(20)
    assert len(running.unplanned) == 3
    assert {(one.what, one.exit_code) for one in running.unplanned} == {("work", 1)}


def test_a_stubborn_part_is_killed_after_its_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_MOST_S", 0.3)
    with shop(STUBBORN="serve") as running:
        running.wait_ready(10)
        processes = family(running.pid("serve"))
    assert gone(processes)


def test_one_shot_commands_give_their_output_or_their_complaint(shop: Shop) -> None:
    with shop() as running:
        assert running.run("product", "add", "gold").stdout == "added add gold\n"
        with pytest.raises(Fault, match=r"`nonsense now` ended with exit code 1:\nno such verb"):
            running.run("nonsense", "now")


def test_cpu_seconds_count_workers_and_survive_a_kill(shop: Shop) -> None:
    with shop() as running:
        running.wait_ready(10)
        assert wait_until(lambda: running.cpu_seconds()["server"] >= 0.4, 10), "two workers burn 0.2 s each"
        before = running.cpu_seconds()["server"]
        running.kill("serve")
        assert running.cpu_seconds()["server"] >= before
    assert cpu_seconds(None) == 0.0


def test_a_store_that_is_not_ours_is_neither_killed_nor_stopped(shop: Shop, stores: LocalStores) -> None:
    with shop() as running, pytest.raises(BadInput, match="not 'valkey'"):
        running.kill("valkey")
    assert stores.valkey.is_running() and stores.postgres.is_running()


def test_a_failed_start_stops_what_had_begun(tmp_path: Path) -> None:
    running = Deployment(tmp_path / "run", launcher=[sys.executable, "-c", "import sys; sys.exit('no tables')"])
    with pytest.raises(Fault, match="no tables"):
        running.start()
    assert not (running.directory / "stores" / "valkey").exists()


def test_a_killed_harness_leaves_nothing_running(tmp_path: Path, shop: Shop, journal: Path) -> None:
    template = shop()
    harness = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from loadtests.shop.deployment import Deployment\n"
            "running = Deployment(Path(sys.argv[1]), launcher=sys.argv[2:], workers=2)\n"
            "running.start(); running.wait_ready(); print('up', flush=True); time.sleep(60)",
            str(tmp_path / "other"),
            sys.executable,
            str(template.directory.parent / "stand_in.py"),
        ],
        env={**os.environ, "JOURNAL": str(journal)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert harness.stdout is not None
    assert harness.stdout.readline() == "up\n"
    everything = family(harness.pid)[1:]
    harness.kill()
    harness.communicate()
    assert gone(everything)
    LocalStores(tmp_path / "other" / "stores").remove()


def test_free_ports_stay_clear_of_those_the_kernel_gives_to_clients() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert max(ports) < 32_768


def test_not_ready_in_time_is_a_fault_not_a_hang(shop: Shop) -> None:
    with shop(FLASHPROOF_OPS_HOST="127.0.0.2") as running:
        began = time.monotonic()
        with pytest.raises(Fault, match="serve is not ready"):
            running.wait_ready(0.5)
        assert time.monotonic() - began < 3
