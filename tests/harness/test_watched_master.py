"""`prove --master --web`: Locust's page on the host that judges, while workers play."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from loadtests.shop.deployment import free_ports
from tests.harness.test_hosts import end, foreign, started, void
from tests.harness.test_targets import corner_shop
from tests.harness.test_web_face import ask

ENDS_S = 30.0


class Watched:
    """A master with a page, and the worker it waits for."""

    def __init__(self, url: str, report: Path, *options: str) -> None:
        self._port, self.web = free_ports(2)
        listen = ("--master-bind-host", "127.0.0.1", "--master-bind-port", str(self._port), "--expect-workers", "1")
        words = (*foreign(url), "--master", *listen, f"--web={self.web}", "--report", str(report), *options)
        self.master = started(*words)
        self.worker: subprocess.Popen[str] | None = None

    def come(self) -> subprocess.Popen[str]:
        """Have the worker come."""
        self.worker = started("--worker", "--master-host", "127.0.0.1", "--master-port", str(self._port))
        return self.worker

    def press(self, button: str, **form: str) -> dict[str, Any]:
        """Press a button of the page."""
        filled = "&".join(f"{name}={value}" for name, value in form.items())
        with urlopen(f"http://127.0.0.1:{self.web}/{button}", filled.encode(), timeout=20) as answer:
            return dict(json.load(answer))

    def looks(self) -> Iterator[dict[str, Any]]:
        """Yield the figures of the page, again and again, until the run is over."""
        while self.master.poll() is None:
            if figures := ask(self.web, "/flashproof"):
                yield figures
            time.sleep(0.2)


@contextlib.contextmanager
def watched(report: Path, *options: str) -> Iterator[Watched]:
    with corner_shop("--stock", "80") as url:
        one = Watched(url, report, *options)
        try:
            yield one
        finally:
            for process in (one.master, one.worker):
                if process is not None:
                    end(process)


def sent(figures: dict[str, Any]) -> int:
    return next((row["figure"] for row in figures["plan"] if row["name"] == "arrivals sent"), 0)


def test_the_page_of_a_master_shows_the_plan_of_all_and_has_nothing_started_by_hand(tmp_path: Path) -> None:
    """Before the workers come it shows Locust's form, which would begin without them, against any host typed there."""
    told: dict[str, Any] = {}
    requests: dict[str, Any] = {}
    with watched(tmp_path / "run", "--seconds", "4") as run:
        for figures in run.looks():
            if not told:
                told = run.press("swarm", user_count="1", spawn_rate="1", host="http://127.0.0.1:9")
                run.come()
            requests = ask(run.web, "/stats/requests") or requests
            last = figures
        said = "".join(run.master.communicate(timeout=ENDS_S))
    assert (told["success"], "begins by itself" in told["message"]) == (False, True)
    assert f"watch it: http://127.0.0.1:{run.web}" in said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["identity"]["scheduled"] == 600, said
    plan = {row["name"]: row["figure"] for row in last["plan"]}
    assert plan["arrivals scheduled"] == 600
    assert 300 <= plan["arrivals sent"] <= 600, "the last look may be some time before the end"
    accepted = next(row for row in requests["stats"] if row["name"] == "accepted")
    assert 0 < accepted["num_requests"] <= summary["identity"]["accepted"]
    assert {table["key"] for table in requests["extended_stats"]} == {"flashproof-latency", "flashproof-plan"}


def test_a_run_stopped_by_hand_is_void_in_one_line_and_its_workers_hear_why(tmp_path: Path) -> None:
    with watched(tmp_path / "run", "--seconds", "60") as run:
        worker, stopped = run.come(), False
        for figures in run.looks():
            if sent(figures) and not stopped:
                stopped = run.press("stop")["success"]
        said = run.master.communicate(timeout=ENDS_S)[1]
        heard = worker.communicate(timeout=ENDS_S)[1]
    assert stopped
    assert (run.master.returncode, worker.returncode) == (3, 3)
    for line in (void(said), void(heard)):
        assert "worker 1 of 1 (on " in line
        assert line.endswith(") did not run the whole of its part")
    assert not (tmp_path / "run" / "summary.json").exists()
