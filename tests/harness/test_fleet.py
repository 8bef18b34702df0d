"""Several processes play one run: real Locust masters and workers against the null shop; their files are merged."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import defaultdict
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from loadtests.generator.arrivals import Arrivals, Constant, Poisson
from loadtests.generator.generated import Generated, Progress
from loadtests.generator.part import Part, PartOfArrivals, plan_of, together
from loadtests.generator.plan import Crowd
from loadtests.generator.recorder import Buckets
from loadtests.record.history import Attempt, read, read_charges
from loadtests.record.latency import open_histogram
from loadtests.record.merge import FILES, RULES, merge_generators, merge_parts
from loadtests.record.summary import Histograms
from loadtests.shop.deployment import free_ports
from tests.harness.test_generator import assert_counted, assert_identity, generated, null_shop, start

RATE, SECONDS, ARRIVALS = 60, 2.5, 150


def fleet(url: str, out: Path, rate: float, seconds: float, *more: str) -> subprocess.Popen[str]:
    port = str(free_ports(1)[0])
    ports = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port)
    return start(url, out, rate, seconds, "--processes", "2", *ports, *more)


def kill_a_worker(process: subprocess.Popen[str]) -> None:
    """Wait until a fleet plays, and kill one of its two workers."""
    assert process.stdout is not None
    while "FLASHPROOF" not in process.stdout.readline():
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    workers[0].kill()


def leave_nothing_of(process: subprocess.Popen[str]) -> None:
    for left in (*psutil.Process(process.pid).children(), process) if process.poll() is None else ():
        left.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int, str]]:
    """Five runs at once: (directory, exit code, standard error) of each.

    The same trace replayed by one process and by two workers, each on a shop of its own; a run one of whose workers
    dies; a shop that cannot be reached; and options that are wrong.
    """
    out = {word: tmp_path_factory.mktemp(word) / "run" for word in ("one", "two", "bereft", "unreached", "wrong")}
    trace = out["one"].parent / "trace.txt"
    trace.write_text("".join(f"{number / RATE + number % 3 / 500:.6f}\n" for number in range(ARRIVALS)))
    shop, spec = ("--stock", "5000", "--hold-ms", "900"), ("--fp-arrivals", f"trace:{trace}")
    with null_shop(*shop) as first, null_shop(*shop) as second, null_shop() as third, ExitStack() as at_the_end:
        running = {
            "bereft": fleet(third, out["bereft"], 50, 60),
            "one": start(first, out["one"], RATE, SECONDS, *spec),
            "two": fleet(second, out["two"], RATE, SECONDS, *spec),
            "unreached": fleet("http://127.0.0.1:1", out["unreached"], 10, 1),
            "wrong": fleet("http://127.0.0.1:1", out["wrong"], 0, 1),
        }
        for process in running.values():
            at_the_end.callback(leave_nothing_of, process)
        kill_a_worker(running["bereft"])
        errors = {word: process.communicate(timeout=60)[1] for word, process in running.items()}
    return {word: (out[word], process.returncode, errors[word]) for word, process in running.items()}


@pytest.fixture(scope="module")
def runs(ended: dict[str, tuple[Path, int, str]]) -> tuple[Path, Path]:
    """The run of one process and the run of two workers."""
    for word in ("one", "two"):
        assert ended[word][1] == 0, ended[word][2]
    return ended["one"][0], ended["two"][0]


def asked(out: Path) -> dict[tuple[Any, ...], list[str]]:
    """Return what each arrival asked for and was told, whatever the order.

    Two copies of a callback may be under way at once; which of them is *paid* and which *repeated* no plan can say.
    """
    found = defaultdict(list)
    for a in read(out / "history.jsonl"):
        if a.op in ("place", "pay"):
            due = a.intended_us if a.why in ("first", "over_limit") else 0
            identity = (a.arrival, a.op, a.why, a.buyer, a.sku, a.quantity, a.idempotency_key, a.event_id, due)
            copies = a.op == "pay" and a.why in ("pay", "pay_again")
            found[identity].append("" if copies else a.outcome)
            if copies:
                found[a.arrival, a.event_id].append(a.outcome)
    return {asked_for: sorted(told) for asked_for, told in found.items()}


def test_two_workers_play_the_run_of_one_process(runs: tuple[Path, Path]) -> None:
    one, two = runs
    assert asked(one) == asked(two)
    told = [generated(out) for out in runs]
    for name in ("complete", "scheduled", "sent", "unsent", "shed", "left", "crashed", "outcomes"):
        assert told[0][name] == told[1][name]
    assert (told[1]["scheduled"], told[1]["processes"]) == (ARRIVALS, 2)
    charged = [sorted((c.event_id, c.amount) for c in read_charges(out / "charges.jsonl")) for out in runs]
    assert charged[0] == charged[1]
    assert charged[0]


def test_the_merged_run_accounts_for_every_arrival_in_the_order_of_its_answers(runs: tuple[Path, Path]) -> None:
    attempts = list(read(runs[1] / "history.jsonl"))
    assert_identity(runs[1], attempts)
    assert {a.arrival for a in attempts} == set(range(ARRIVALS))
    assert all(before.done_us <= after.done_us for before, after in pairwise(attempts))
    assert generated(runs[1])["requests"] == sum(a.status > 0 for a in attempts)
    assert not list(runs[1].glob(".parts-*"))
    assert_counted(runs[1])


def test_the_merged_histograms_are_those_of_the_merged_history(runs: tuple[Path, Path]) -> None:
    histograms = msgspec.json.decode((runs[1] / "histograms.json").read_bytes(), type=Histograms)
    expected: dict[str, dict[str, Buckets]] = {"latency": defaultdict(Buckets), "service": defaultdict(Buckets)}
    for attempt in read(runs[1] / "history.jsonl"):
        expected["latency"][named(attempt)].add(attempt.done_us - attempt.intended_us)
        expected["service"][named(attempt)].add(attempt.done_us - attempt.sent_us)
    for beginning, buckets in expected.items():
        merged = getattr(histograms, beginning)
        assert set(merged) - {"paid_to_delivered"} == set(buckets)
        for name, one in buckets.items():
            assert list(open_histogram(merged[name]).counts) == list(one.histogram().counts)
            assert (merged[name].count, merged[name].max) == (one.total, one.max_us)


@pytest.mark.parametrize("name", FILES)
def test_parts_that_make_no_whole_leave_nothing_half_written(
    runs: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    """Stops: a directory that looks like a run, for the history was merged before a later file proved unreadable."""
    parts, out = [tmp_path / "1", tmp_path / "2"], tmp_path / "run"
    out.mkdir()
    for part in parts:
        part.mkdir()
        for file in FILES:
            (part / file).write_bytes((runs[0] / file).read_bytes())
    merge_parts(parts, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    for path in out.iterdir():
        path.unlink()
    (parts[1] / name).write_bytes(b'{"torn')
    with pytest.raises(msgspec.DecodeError):
        merge_parts(parts, out)
    assert not list(out.iterdir())


def named(attempt: Attempt) -> str:
    if attempt.op == "place":
        return attempt.outcome
    return f"{'pay' if attempt.op == 'pay' else attempt.why}_{attempt.outcome}"


def test_a_worker_that_dies_makes_the_run_void_and_says_so(ended: dict[str, tuple[Path, int, str]]) -> None:
    out, code, stderr = ended["bereft"]
    assert code == 3
    assert sum("of 2 died, and its part of the history with it" in line for line in stderr.splitlines()) == 1
    assert not list(out.iterdir())


def test_a_shop_that_no_worker_reaches_ends_the_run_with_one_line_and_no_files(
    ended: dict[str, tuple[Path, int, str]],
) -> None:
    out, code, stderr = ended["unreached"]
    assert code == 3
    assert sum("of 2 could not play its part: no shop at 127.0.0.1:1: " in line for line in stderr.splitlines()) == 1
    assert not list(out.iterdir())


def test_bad_options_of_a_fleet_end_in_one_line_and_write_nothing(ended: dict[str, tuple[Path, int, str]]) -> None:
    out, code, stderr = ended["wrong"]
    assert code == 64
    assert sum("flash_sale: " in line and "rate" in line for line in stderr.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("of", [1, 2, 3, 7])
@pytest.mark.parametrize("whole", [Constant(100, 0.5), Poisson(40, 1, 3), Constant(1, 1)])
def test_the_parts_are_the_whole_plan_each_arrival_once(whole: Arrivals, of: int) -> None:
    parts = [PartOfArrivals(whole, Part(index, of)) for index in range(of)]
    due = sorted(part.due_us(number) for part in parts for number in range(part.total))
    assert due == [whole.due_us(number) for number in range(whole.total)]
    for part in parts:
        assert part.pace(-1_000, part.total) == (0, True)
        if part.total:
            assert part.pace(-1_000, 0) == (part.due_us(0) + 1_000, False)


def test_what_is_planned_ahead_is_what_would_be_planned_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Crowd(5, "hot", 20)
    for ahead in (0, 7, 100):
        monkeypatch.setattr("loadtests.generator.part.AHEAD_MOST", ahead)
        for index, of in ((0, 1), (2, 3)):
            planned = plan_of(Part(index, of), crowd.plan, 10)
            assert [planned(n) for n in (9, 0, 3)] == [crowd.plan(index + n * of) for n in (9, 0, 3)]


def test_every_field_of_the_generators_word_has_a_rule_and_the_worst_part_counts() -> None:
    assert set(Generated.__struct_fields__) <= set(RULES)
    one = {
        "complete": True, "scheduled": 3, "sent": 2, "unsent": 1, "cpu_max": 0.2, "wake_lag_us": {"p99": 9, "max": 10},
        "started_unix_us": 5, "outcomes": {"accepted": 2, "unsent": 1}, "stalls": [[7, 60_000]], "requests": 4,
        "sale_s": 2.0, "elapsed_s": 4.0, "rates": {"accepted_per_s": 1.0},
    }  # fmt: skip
    other = one | {"complete": False, "cpu_max": 0.9, "wake_lag_us": {"p99": 30, "max": 8}, "stalls": [[2, 51_000]]}
    one["read_lag_us"], other["read_lag_us"] = None, {"p99": 7, "max": 9, "replies": 3}
    merged = merge_generators([one, other])
    assert merged["read_lag_us"] == {"p99": 7, "max": 9, "replies": 3}
    assert merge_generators([other, other])["read_lag_us"] == {"p99": 7, "max": 9, "replies": 6}
    assert merge_generators([one, one])["read_lag_us"] is None
    assert (merged["complete"], merged["scheduled"], merged["cpu_max"]) == (False, 6, 0.9)
    assert merged["wake_lag_us"] == {"p99": 30, "max": 10}
    assert merged["outcomes"] == {"accepted": 4, "unsent": 2}
    assert merged["stalls"] == [[2, 51_000], [7, 60_000]]
    assert merged["rates"] == {"offered_per_s": 2.0, "accepted_per_s": 2.0, "requests_per_s": 2.0}
    assert merged["processes"] == 2
    with pytest.raises(ValueError, match="not of one run"):
        merge_generators([one, other | {"started_unix_us": 6}])
    with pytest.raises(ValueError, match="no rule merges mystery"):
        merge_generators([one, other | {"mystery": 1}])


def test_progress_of_all_is_summed_and_the_worst_is_told() -> None:
    line = {
        "elapsed_s": 1.0, "phase": "drain", "scheduled": 10, "sent": 5, "under_way": 1, "accepted": 3, "refused": 1,
        "sold": 2, "p99_us": 100, "shed": 0, "cpu": 0.1,
    }  # fmt: skip
    one, other = Progress(**line), Progress(**line | {"phase": "sale", "p99_us": 700, "cpu": 0.7, "sold": 0})
    merged = json.loads(msgspec.json.encode(together([one, other])))
    assert merged == line | {
        "phase": "sale", "scheduled": 20, "sent": 10, "under_way": 2, "accepted": 6, "refused": 2, "sold": 2,
        "p99_us": 700, "cpu": 0.7,
    }  # fmt: skip
