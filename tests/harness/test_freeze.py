"""Coordinated omission as a test with an exact answer: a shop that stands still for S of T seconds.

Of arrivals that come evenly and whatever happens, the q-quantile of the latency is then max(0, S − (1−q)·T): the
share S/T of them came while the shop stood still and waited for the rest of it.
"""

from __future__ import annotations

import json
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from loadtests.record.history import read
from loadtests.record.identity import first_places, identity_of
from loadtests.record.latency import quantile
from loadtests.record.stock_locust import stock_locust
from tests.harness.test_generator import generated, null_shop_process, start

RATE: Final = 200
SALE_S: Final = 12.0
FROZEN_S: Final = 1.0
BEGINS_S: Final = 4.0
EXACT_WITHIN: Final = 0.05


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Run a sale against a shop that is stopped once; return its directory and for how long, in seconds."""
    out = tmp_path_factory.mktemp("freeze") / "run"
    with null_shop_process("--stock", "100000", "--hold-ms", "60000") as (url, shop):
        process = start(url, out, RATE, SALE_S, "--fp-cold", "0", "--fp-think", "0", "--fp-drain", "1")
        assert process.stdout is not None
        while "FLASHPROOF" not in process.stdout.readline():
            time.sleep(0.01)
        time.sleep(BEGINS_S)
        began = time.monotonic()
        shop.send_signal(signal.SIGSTOP)
        time.sleep(FROZEN_S)
        shop.send_signal(signal.SIGCONT)
        stopped_s = time.monotonic() - began
        _, stderr = process.communicate(timeout=40)
    assert process.returncode == 0, stderr
    # On a busy machine a process that may go on does not go on at once: what counts is how long it was silent.
    answered = sorted(a.done_us for a in read(out / "history.jsonl") if a.op == "place" and a.status)
    silent_s = max(after - before for before, after in pairwise(answered)) / 1e6
    assert stopped_s <= silent_s + 0.02 and silent_s < stopped_s + 0.5
    return out, silent_s


def truth_us(frozen_s: float, share: float) -> float:
    return max(0.0, frozen_s - (1 - share) * SALE_S) * 1e6


@pytest.mark.parametrize(("name", "share"), [("p99", 0.99), ("p999", 0.999)])
def test_a_frozen_shop_has_the_latency_that_arithmetic_says(
    frozen: tuple[Path, float], name: str, share: float
) -> None:
    """Stops: a generator that stops asking while the shop stands still, as closed users do."""
    out, frozen_s = frozen
    histograms = json.loads((out / "histograms.json").read_text())["latency"]
    assert histograms["accepted"][name] == pytest.approx(truth_us(frozen_s, share), rel=EXACT_WITHIN)


def test_stock_locust_would_have_seen_next_to_nothing_of_it(frozen: tuple[Path, float]) -> None:
    """The figure that stands beside ours in every report."""
    out, frozen_s = frozen
    said = stock_locust(first_places(read(out / "history.jsonl")).values(), RATE)
    assert said.p99 < truth_us(frozen_s, 0.99) / 4
    assert said.count < RATE * (SALE_S - frozen_s / 2)  # it never asked what it should have


def test_nobody_was_kept_from_coming_by_the_freeze(frozen: tuple[Path, float]) -> None:
    out, frozen_s = frozen
    firsts = first_places(read(out / "history.jsonl"))
    told = generated(out)
    identity = identity_of(told["scheduled"], firsts.values())
    assert identity.accounted() == told["scheduled"] == round(RATE * SALE_S)
    assert (told["shed"], told["unsent"], identity.failed) == (0, 0, 0)
    begin_us = min(a.sent_us for a in firsts.values() if a.done_us - a.sent_us > 0.9 * frozen_s * 1e6)
    asked = sum(begin_us <= a.sent_us < begin_us + frozen_s * 1e6 for a in firsts.values())
    assert asked == pytest.approx(RATE * frozen_s, rel=EXACT_WITHIN)
    waits = sorted(a.done_us - a.sent_us for a in firsts.values())
    assert quantile(waits, 0.5) < 0.1 * frozen_s * 1e6  # before and after, the shop was quick
