"""The lean user inside real Locust processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from loadtests.generator.ceiling import null_server

ROOT = Path(__file__).resolve().parent.parent.parent
LOCUSTFILE = """
from locust import constant, task
from locust.exception import StopUser
from loadtests.generator.lean_user import LeanUser

class Shopper(LeanUser):
    wait_time = constant(0)

    @task
    def story(self):
        get, post = self.client.get, self.client.post
        for number in range(20):
            assert get(f"/ok?{number}", name="/ok").json() == {"method": "GET", "body": ""}
        assert post("/ok", data="a=1", headers={"X-Own": "1"}).json()["body"] == "a=1"
        assert post("/ok", json={"b": [2]}).json() == {"method": "POST", "body": '{"b":[2]}'}
        assert get("/missing").status_code == 404
        assert get("/drop").error == "closed"
        assert get("/slow", timeout=0.2).error == "timeout"
        with get("/ok", name="judged", catch_response=True) as reply:
            reply.failure("too plain")
        with get("/missing", name="forgiven", catch_response=True) as reply:
            reply.success()
        for wrong in (dict(path="/a b"), dict(path="ok"), dict(path="/", headers={"A": "1\\r\\nB: 2"})):
            try:
                get(**wrong)
            except ValueError:
                continue
            raise AssertionError(wrong)
        self.environment.runner.stats.num_stories = getattr(self.environment.runner.stats, "num_stories", 0) + 1
        if self.environment.runner.stats.num_stories == 3:
            self.environment.runner.quit()
        raise StopUser
"""
STORY = 20 + 1 + 1 + 1 + 1 + 1 + 1 + 1  # requests of one user


class Handler(BaseHTTPRequestHandler):
    """Says what it was asked; drops, or is slow, when the path says so."""

    protocol_version = "HTTP/1.1"
    connections: ClassVar[set[Any]] = set()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        Handler.connections.add(self.client_address)
        if self.path == "/drop":
            self.close_connection = True
            return
        if self.path == "/slow":
            threading.Event().wait(0.6)
        answer = json.dumps({"method": self.command, "body": body}).encode()
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class Ran(NamedTuple):
    """What the process left."""

    calls: list[dict[str, Any]]
    histograms: dict[str, dict[str, Any]]
    stats: dict[tuple[str, str], dict[str, Any]]
    connections: int


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("lean")
    (folder / "shopper.py").write_text(LOCUSTFILE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done = locust(folder, f"http://127.0.0.1:{server.server_port}", "--json")
    server.shutdown()
    server.server_close()
    assert done.returncode in (0, 1), done.stderr  # 1: Locust saw failures
    assert "Traceback" not in done.stderr
    stats = {(one["method"], one["name"]): one for one in json.loads(done.stdout)}
    calls = [json.loads(line) for line in (folder / "out" / "requests.jsonl").read_text().splitlines()]
    yield Ran(calls, json.loads((folder / "out" / "histograms.json").read_text()), stats, len(Handler.connections))


def locust(folder: Path, host: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", str(folder / "shopper.py"), "--headless", "--only-summary"]
    command += ["-u", "3", "-r", "3", "-t", "15", "--host", host, "--lean-out", str(folder / "out"), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_every_request_is_accounted_for_three_times(ran: Ran) -> None:
    """History, histogram and Locust's own statistics say the same."""
    assert len(ran.calls) == 3 * STORY
    told = Counter((call["op"], call["name"]) for call in ran.calls)
    assert {key: one["num_requests"] for key, one in ran.stats.items()} == told
    outcomes = Counter(f"{call['op']} {call['name']} {call['outcome']}" for call in ran.calls)
    assert {name: one["count"] for name, one in ran.histograms.items()} == outcomes
    for name, one in ran.histograms.items():
        slowest = max(
            c["done_us"] - c["intended_us"] for c in ran.calls if f"{c['op']} {c['name']} {c['outcome']}" == name
        )
        assert one["max"] == slowest


def test_what_failed_is_a_failure_to_locust_and_unknown_where_it_was_sent(ran: Ran) -> None:
    failed = {key: one["num_failures"] for key, one in ran.stats.items() if one["num_failures"]}
    assert failed == {("GET", "/missing"): 3, ("GET", "/drop"): 3, ("GET", "/slow"): 3, ("GET", "judged"): 3}
    results = {(call["name"], call["outcome"]): call["result"] for call in ran.calls}
    assert results["/missing", "http_404"] == "fail"
    assert results["/drop", "closed"] == results["/slow", "timeout"] == "unknown"
    assert results["judged", "too plain"] == "fail"
    assert results["forgiven", "ok"] == "ok"


def test_connections_are_kept_and_shared(ran: Ran) -> None:
    """One for each user under way, and one more for each that was dropped or given up."""
    assert ran.connections <= 3 + 3 * 2


def test_a_host_that_plain_sockets_cannot_reach_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "shopper.py").write_text(LOCUSTFILE)
    done = locust(tmp_path, "https://127.0.0.1:1", "-t", "1")
    assert (
        "LeanUser needs --host http://name:port, not 'https://127.0.0.1:1'; for https use FastHttpUser" in done.stderr
    )
    assert not (tmp_path / "out").exists()


def counted(code: str, *arguments: str) -> list[float]:
    """Return what a script in a process of its own prints: importing Locust would patch this one."""
    command = [sys.executable, "-c", PROLOGUE + code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


PROLOGUE = """
from locust.env import Environment
from loadtests.generator import ceiling_users
import sys, tempfile
from pathlib import Path
from loadtests.generator.lean_accounts import Accounts, Call

def calls(act, times=100):
    for _ in range(10):
        act()
    seen = 0
    def count(frame, event, what):
        nonlocal seen
        seen += event in ("call", "c_call")
    sys.setprofile(count)
    for _ in range(times):
        act()
    sys.setprofile(None)
    print((seen - 1) / times)
"""


def test_a_request_of_the_lean_user_takes_a_third_of_the_calls_of_locusts_fast_one() -> None:
    """How much faster it is in requests a second, `python -m loadtests generator-ceiling` measures; calls are exact."""
    code = """
for kind in (ceiling_users.Lean, ceiling_users.Fast):
    kind.host = f"http://127.0.0.1:{sys.argv[1]}"
    calls(kind(Environment()).look)
"""
    with null_server() as port:
        lean, fast = counted(code, str(port))
    assert 3 * lean <= fast, (lean, fast)


def test_recording_takes_a_handful_of_calls() -> None:
    code = """
accounts = Accounts(Environment(), Path(tempfile.mkdtemp()), False)
calls(lambda: accounts.note(Call("GET", "/x", 1, 2, 903, "ok", 200, "ok", 5)))
"""
    assert counted(code)[0] <= 12
