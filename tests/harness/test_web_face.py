"""`--web`: Locust's own web UI during a run, with latencies from the due instant, and the tabs beside its own."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from loadtests.generator.generated import Progress
from loadtests.generator.load import web_words
from loadtests.generator.recorder import Buckets
from loadtests.generator.web_face import Together, percentiles_ms
from loadtests.shop.deployment import free_ports
from tests.harness.test_generator import ROOT, SANDBOX_SECRET, SCENARIO, SECRET, null_shop

STOPPED_S = 0.5


def test_a_master_shows_the_plan_of_all_its_workers_and_no_figure_it_does_not_have() -> None:
    live = Together(
        Progress(
            elapsed_s=1.0, phase="sale", scheduled=90, sent=40, under_way=3, accepted=20, refused=15, sold=9,
            p99_us=12_500, shed=2, cpu=0.4,
        )
    )  # fmt: skip
    plan = {row["name"]: row["figure"] for row in live.plan()}
    assert (plan["arrivals scheduled"], plan["arrivals sent"], plan["arrivals: shed"]) == (90, 40, 2)
    assert plan["accepted lately: p99 of the slowest worker (ms)"] == 12.5
    (row,) = live.latencies()
    assert set(row) == {"name"}


def ask(port: int, path: str) -> Any:
    """Return an answer of the web UI (JSON as objects), or None while there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, body
        return json.loads(body) if "json" in (answer.headers["content-type"] or "") else body
    except OSError:
        return None
    finally:
        connection.close()


class Watched:
    """A run of which half a second of generator is missing, and what its web UI said last."""

    def __init__(self, out: Path) -> None:
        self.out, self.port = out, free_ports(1)[0]
        self.index = ""
        self.requests: dict[str, Any] = {}
        self.figures: dict[str, Any] = {}

    def run(self) -> None:
        secrets = {"FLASHPROOF_SECRET": SECRET, "FLASHPROOF_SANDBOX_SECRET": SANDBOX_SECRET}
        environment = os.environ | {name: base64.b64encode(value).decode() for name, value in secrets.items()}
        with null_shop("--stock", "5000") as url:
            command = [sys.executable, "-m", "locust", "-f", str(SCENARIO), "--only-summary", *web_words(self.port)]
            command += ["--loglevel", "WARNING", "--host", url, "--fp-out", str(self.out), "--fp-cold", "5"]
            command += ["--fp-rate", "200", "--fp-seconds", "4", "--fp-drain", "4"]
            process = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self._watch(process)
            assert process.wait(timeout=30) == 0

    def _watch(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        stopped = False
        for line in process.stdout:
            if not line.startswith("FLASHPROOF "):
                continue
            told = json.loads(line.partition(" ")[2])
            if told["elapsed_s"] > 1 and not stopped:
                stopped = True
                process.send_signal(signal.SIGSTOP)
                time.sleep(STOPPED_S)
                process.send_signal(signal.SIGCONT)
                self.index = ask(self.port, "/")
            if told["phase"] == "drain":
                self.requests = ask(self.port, "/stats/requests") or self.requests
                self.figures = ask(self.port, "/flashproof") or self.figures


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    one = Watched(tmp_path_factory.mktemp("web") / "run")
    one.run()
    return one


def test_locusts_table_shows_the_latency_from_the_due_instant(watched: Watched) -> None:
    """Half a second without a generator: from the send nothing happened, and stock Locust would have said so."""
    written = json.loads((watched.out / "histograms.json").read_text())
    due_ms = written["latency"]["accepted"]["p99"] / 1000
    sent_ms = written["service"]["accepted"]["p99"] / 1000
    row = next(one for one in watched.requests["stats"] if one["name"] == "accepted")
    assert due_ms > 0.6 * STOPPED_S * 1000
    assert row["response_time_percentile_0.99"] == pytest.approx(due_ms, rel=0.1)
    assert row["response_time_percentile_0.99"] > 2 * sent_ms
    assert row["num_requests"] == pytest.approx(written["latency"]["accepted"]["count"], rel=0.05)


def test_the_tabs_show_both_latencies_the_plan_and_the_wake_lag(watched: Watched) -> None:
    """What Locust's table has no column for."""
    for figures in (watched.figures, {one["key"]: one["data"] for one in watched.requests["extended_stats"]}):
        latency = figures.get("latency") or figures["flashproof-latency"]
        accepted = next(one for one in latency if one["name"] == "accepted")
        assert accepted["due_max"] > 0.8 * STOPPED_S * 1000
        assert accepted["due_p50"] < 100
        assert accepted["due_p99"] == "–", "800 orders have no p99 worth the name"
        plan = {one["name"]: one["figure"] for one in figures.get("plan") or figures["flashproof-plan"]}
        assert plan["arrivals scheduled"] == 800
        assert sum(count for name, count in plan.items() if re.match("arrivals[: ]+(?!sched)", name)) == 800
        assert "generator: wake lag p99 (ms)" in plan


def test_the_page_is_locusts_own_with_two_tabs_more(watched: Watched) -> None:
    """Its script reads the tabs from the template's arguments."""
    arguments = json.loads(re.search(r"window\.templateArgs = (\{.*\})", watched.index)[1])  # type: ignore[index]
    assert [one["title"] for one in arguments["extended_tabs"]] == ["Due and sent", "Plan and generator"]
    assert {one["key"] for one in arguments["extended_tables"]} == {one["key"] for one in arguments["extended_tabs"]}


def test_the_live_percentiles_are_those_that_are_written_at_the_end() -> None:
    """Two ways to count the same buckets."""
    buckets = Buckets()
    for n in range(1, 200_001):
        buckets.add(n)
    live, written = percentiles_ms(buckets), buckets.summary()
    assert live["p50"] == pytest.approx(written.p50 / 1000, rel=0.001)
    assert live["p99"] == pytest.approx(written.p99 / 1000, rel=0.001)
    assert live["p90"] == pytest.approx(written.p90 / 1000, rel=0.001)
    assert percentiles_ms(Buckets())["p50"] == "–"


def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path: Path) -> None:
    """Locust would say it in its log, after the stores are up."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        web = f"--web={other.getsockname()[1]}"
        argv = [sys.executable, "-m", "core", "prove", web, "--report", str(tmp_path / "run")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 64
    assert "give another" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
