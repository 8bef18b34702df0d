"""The whole generator, a real Locust process against the null shop: files, identity, history, resolving."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.ids import Names
from loadtests.record.fitness import contradicted
from loadtests.record.history import Attempt, read, read_charges
from loadtests.record.identity import first_places
from loadtests.record.rebuild import generator_differences, histogram_differences, rebuild
from loadtests.record.resolve import open_questions, resolve
from loadtests.record.summary import Generator, Histograms

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCENARIOS = ROOT / "loadtests" / "scenarios"
SCENARIO = SCENARIOS / "flash_sale.py"
SECRET, SANDBOX_SECRET = b"s" * 32, b"g" * 32


@contextmanager
def null_shop(*options: str) -> Iterator[str]:
    with null_shop_process(*options) as (url, _):
        yield url


@contextmanager
def null_shop_process(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, str(HERE / "null_shop.py"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shop:
        assert shop.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(shop.stdout.readline())}", shop
        finally:
            shop.kill()


def start(
    url: str, out: Path, rate: float, seconds: float, *more: str, scenario: Path = SCENARIO
) -> subprocess.Popen[str]:
    secrets = {"FLASHPROOF_SECRET": SECRET, "FLASHPROOF_SANDBOX_SECRET": SANDBOX_SECRET}
    environment = os.environ | {name: base64.b64encode(value).decode() for name, value in secrets.items()}
    command = [sys.executable, "-m", "locust", "-f", str(scenario), "--headless", "--only-summary"]
    command += ["--loglevel", "WARNING", "--host", url, "--fp-out", str(out), "--fp-cold", "5"]
    command += ["--fp-rate", str(rate), "--fp-seconds", str(seconds), *more]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def generated(out: Path) -> dict[str, Any]:
    return json.loads((out / "generator.json").read_text())


def assert_identity(out: Path, attempts: list[Attempt]) -> None:
    told = generated(out)
    assert told["scheduled"] == told["sent"] + told["unsent"] + told["shed"]
    assert told["scheduled"] == sum(told["outcomes"].values())
    firsts = Counter(
        a.result if a.result in ("unknown", "shed", "unsent") else a.outcome
        for a in attempts
        if a.why in ("first", "over_limit")
    )
    assert dict(firsts) == told["outcomes"]
    assert len({a.arrival for a in attempts}) == told["scheduled"]


def assert_counted(out: Path) -> None:
    """Assert that all that was counted while the load ran can be counted again from what it wrote."""
    attempts, charges = list(read(out / "history.jsonl")), list(read_charges(out / "charges.jsonl"))
    said = msgspec.json.decode((out / "histograms.json").read_bytes(), type=Histograms)
    generator = msgspec.json.decode((out / "generator.json").read_bytes(), type=Generator)
    latency, service = rebuild(attempts, charges)
    assert list(histogram_differences("latency", said.latency, latency)) == []
    assert list(histogram_differences("service", said.service, service)) == []
    assert list(generator_differences(generator, attempts, latency)) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    out = tmp_path_factory.mktemp("generator") / "run"
    with null_shop("--stock", "200", "--hold-ms", "700") as url:
        process = start(url, out, 200, 3)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    return out, stdout, stderr


def test_the_plan_is_run_and_every_arrival_is_accounted_for(run: tuple[Path, str, str]) -> None:
    out, _, _ = run
    attempts = list(read(out / "history.jsonl"))
    told = generated(out)
    assert told["complete"]
    assert (told["scheduled"], told["sent"], told["crashed"], told["left"]) == (600, 600, 0, 0)
    assert_identity(out, attempts)
    assert sum(a.status > 0 for a in attempts) == told["requests"] == len(attempts)
    assert_counted(out)


def test_what_lies_between_due_and_sent_is_the_sum_of_its_parts(run: tuple[Path, str, str]) -> None:
    """Stops: waiting that is booked twice, or hidden by a figure cut off at zero."""
    firsts = list(first_places(read(run[0] / "history.jsonl")).values())
    assert list(contradicted(firsts)) == []
    assert all(min(a.waited_us, a.connect_us, a.wake_lag_us) >= 0 for a in firsts)
    assert all(a.sent_us - a.intended_us == a.waited_us + a.connect_us + a.wake_lag_us for a in firsts)
    asked = msgspec.structs.replace(firsts[0], waited_us=firsts[0].sent_us - firsts[0].intended_us + 1)
    assert list(contradicted([asked])) == [
        "1 requests were sent before they were due, or waited for longer than there was time."
    ]


def test_the_crowd_reaches_every_interesting_state(run: tuple[Path, str, str]) -> None:
    attempts = list(read(run[0] / "history.jsonl"))
    seen = {(a.op, a.outcome) for a in attempts}
    for wanted in ("accepted", "replayed", "sold_out", "limit_reached", "idempotency_conflict"):
        assert ("place", wanted) in seen
    assert {("pay", "paid"), ("pay", "repeated"), ("track", "delivered")} <= seen
    assert seen & {("pay", "late"), ("pay", "refund_due")}
    assert {a.result for a in attempts if a.outcome == "sold_out"} == {"fail"}


def test_latency_counts_from_the_plan_and_history_is_in_order(run: tuple[Path, str, str]) -> None:
    attempts = list(read(run[0] / "history.jsonl"))
    for attempt in attempts:
        assert attempt.intended_us <= attempt.sent_us <= attempt.done_us
        if attempt.why in ("first", "over_limit"):
            assert attempt.intended_us == attempt.arrival * 5_000
    histograms = json.loads((run[0] / "histograms.json").read_text())["latency"]
    exact = max(a.done_us - a.intended_us for a in attempts if a.outcome == "accepted")
    assert histograms["accepted"]["max"] == exact
    assert histograms["accepted"]["count"] == sum(a.outcome == "accepted" for a in attempts)
    assert histograms["paid_to_delivered"]["count"] > 100


def test_retries_got_the_same_answer_and_no_key_is_written(run: tuple[Path, str, str]) -> None:
    answers: dict[str, set[str]] = defaultdict(set)
    for attempt in read(run[0] / "history.jsonl"):
        if attempt.op == "place" and attempt.result == "ok":
            answers[attempt.idempotency_key].add(attempt.answer)
    assert all(len(found) == 1 for found in answers.values())
    raw = (run[0] / "history.jsonl").read_text()
    assert "KEY-" not in raw
    assert Names(SECRET).key_hash("KEY-00000001").hex() in raw


def test_every_order_paid_for_was_charged_once(run: tuple[Path, str, str]) -> None:
    charges = list(read_charges(run[0] / "charges.jsonl"))
    attempts = list(read(run[0] / "history.jsonl"))
    paid = {a.event_id for a in attempts if a.op == "pay" and a.outcome in ("paid", "late", "refund_due")}
    assert {c.event_id for c in charges} == paid
    assert len({c.order_id for c in charges}) == len(charges)


def test_progress_and_locusts_own_statistics_are_told(run: tuple[Path, str, str]) -> None:
    out, stdout, stderr = run
    lines = [json.loads(line.partition(" ")[2]) for line in stdout.splitlines() if line.startswith("FLASHPROOF ")]
    assert len(lines) >= 5
    assert {"elapsed_s", "phase", "sent", "under_way", "accepted", "refused", "sold", "p99_us", "shed", "cpu"} <= set(
        lines[0]
    )
    assert {line["phase"] for line in lines} == {"sale", "drain"}
    aggregated = next(line for line in stderr.splitlines() if line.strip().startswith("Aggregated"))
    assert int(aggregated.split()[1]) == generated(out)["requests"]


def test_faults_are_unknown_retried_with_the_same_key_and_resolved_afterwards(tmp_path: Path) -> None:
    out = tmp_path / "run"
    faults = ("--reset-every", "7", "--busy-every", "11", "--lose-callback-every", "3", "--hold-ms", "60000")
    with null_shop(*faults) as url:
        process = start(url, out, 150, 1, "--fp-drain", "1")
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0, stderr
        before = list(read(out / "history.jsonl"))
        charges = list(read_charges(out / "charges.jsonl"))
        questions = open_questions(before, charges)
        resolved = resolve(out, url, names_secret=SECRET, sandbox_secret=SANDBOX_SECRET)
    assert_identity(out, before)
    assert_counted(out)  # with what was asked again afterwards, which counts nowhere
    histograms = json.loads((out / "histograms.json").read_text())["latency"]
    assert histograms["accepted_after_retry"]["count"] == sum(
        a.outcome == "accepted" and a.why == "retry" for a in before
    )
    assert generated(out)["left"] > 0  # the drain was too short on purpose
    retried = [a for a in before if a.op == "place" and a.why == "retry"]
    assert {"accepted", "replayed"} <= {a.outcome for a in retried}
    assert {a.result for a in before if a.outcome == "overloaded"} == {"fail"}
    assert {a.result for a in before if a.outcome in ("reset", "closed")} == {"unknown"}
    assert questions.charges
    assert (resolved.charges, resolved.left_open) == (len(questions.charges), 0)
    after = list(read(out / "history.jsonl"))
    assert after[: len(before)] == before
    assert {a.why for a in after[len(before) :]} == {"resolve"}
    rest = open_questions(after, charges)
    assert not rest.places
    assert not rest.charges


def test_a_run_that_is_stopped_says_so_and_leaves_whole_files(tmp_path: Path) -> None:
    with null_shop() as url:
        process = start(url, tmp_path, 200, 60)
        assert process.stdout is not None
        while "FLASHPROOF" not in process.stdout.readline():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 1
    told = generated(tmp_path)
    assert not told["complete"]
    assert told["unsent"] > 0
    assert_identity(tmp_path, list(read(tmp_path / "history.jsonl")))
    assert_counted(tmp_path)


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (("--fp-rate", "0"), 64, "rate"),
        (("--host", "ftp://x"), 64, "--host"),
        (("--host", "http://127.0.0.1:1"), 3, "no shop at"),
    ],
)
def test_bad_usage_ends_in_one_line_and_writes_nothing(
    tmp_path: Path, more: tuple[str, ...], code: int, says: str
) -> None:
    process = start("http://127.0.0.1:1", tmp_path / "run", 10, 1, *more)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == code
    assert sum("flash_sale: " in line and says in line for line in stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_callbacks_are_signed_as_the_design_says() -> None:
    from loadtests.generator.contract import sign

    body = b'{"event_id":"e"}'
    expected = hmac.new(SANDBOX_SECRET, b"1700000000." + body, hashlib.sha256).hexdigest()
    assert sign(SANDBOX_SECRET, body, 1_700_000_000) == f"t=1700000000,v1={expected}"
