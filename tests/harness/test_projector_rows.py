"""The rows of the record (projector, delivery, waiters), each as small as it can be, on one deployment."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.record import client, delivery, projector, waiters
from benchmarks.record.result import figure, percentile
from core.errors import BadInput
from loadtests.shop.deployment import Deployment


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("rows")) as shop:
        shop.wait_ready()
        yield shop


@pytest.fixture
def rows(shop: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a verb on the deployment that is there already; return its JSON, its words, and its exit code."""
    monkeypatch.chdir(tmp_path)
    for module in (projector, delivery, waiters):
        monkeypatch.setattr(module, "a_shop", lambda say: contextlib.nullcontext(shop))

    def run(verb: str, *options: str) -> tuple[dict[str, Any], str, int]:
        code = main([verb, *options])
        told = json.loads((tmp_path / "out" / verb / "latest" / f"{verb}.json").read_text())
        words = capsys.readouterr()
        assert "[" in words.err, "it shows where it is"
        return told, words.out, code

    return run


def _figures(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in told["figures"]}


def _assert_judged(told: dict[str, Any], words: str, code: int) -> None:
    assert code == (0 if all(one["met"] for one in told["figures"]) else 1)
    assert told["machine"]["cores"] >= 1 and told["started_at"][:10] in words
    assert ("MISSED" in words) == (code == 1)
    for costs in told["spent"].values():
        assert {"postgres", "valkey", "worker", "driver"} <= {cost["role"] for cost in costs}


def test_the_projectors_row_follows_every_order_and_drains_its_backlog(rows: Any) -> None:
    """Stops: a row that loses entries, or a lag that is measured on some of them."""
    told, words, code = rows("projector", "--rates", "250", "--rounds", "1", "--seconds", "0.5", "--backlog", "500")
    found = _figures(told)
    assert found["accepted at 250/s"]["value"] == pytest.approx(250, rel=0.2)
    assert 0 < found["lag p50 at 250/s"]["value"] <= found["lag greatest at 250/s"]["value"] < 20_000
    assert found["backlog of 500 drained in"]["value"] > 0
    assert found["highest rate that held, of those offered"]["bar"] == 5_000 and code == 1
    _assert_judged(told, words, code)


def test_the_row_of_delivery_shows_every_buyer_a_key_of_their_own(rows: Any) -> None:
    """Stops: latencies of answers without a key, or of one key shown twice."""
    told, words, code = rows("delivery", "--rate", "40", "--rounds", "1", "--seconds", "1")
    found = _figures(told)
    assert found["payments sent"]["value"] == pytest.approx(40, rel=0.2)
    assert 0 < found["paid to key, p50"]["value"] <= found["paid to key, p99"]["value"] < 20_000
    _assert_judged(told, words, code)


def test_the_row_of_those_who_wait_wakes_each_of_them_after_the_commit(rows: Any) -> None:
    """Stops: buyers counted as woken who did not wait, or clocks that do not fit together."""
    told, words, code = rows("waiters", "--buyers", "50", "--rounds", "1")
    found = _figures(told)
    assert found["buyers who waited at once on one worker"]["value"] == 50
    assert 0 < found["woken after, p50"]["value"] <= found["woken after, the last one"]["value"] < 20_000
    _assert_judged(told, words, code)


@pytest.mark.parametrize(
    "arguments",
    [
        ("projector", "--rates", "fast"),
        ("projector", "--rates", "1"),
        ("projector", "--seconds", "0"),
        ("projector", "--backlog", "0"),
        ("delivery", "--rate", "0"),
        ("delivery", "--rounds", "99"),
        ("waiters", "--buyers", "0"),
        ("waiters", "--what"),
        ("nonsense",),
    ],
    ids=" ".join,
)
def test_bad_usage_says_what_to_do_and_starts_nothing(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: a minute of measuring what was not meant, or a trace for a typing error."""
    monkeypatch.chdir(tmp_path)
    assert main(list(arguments)) == 64
    assert capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_more_connections_than_files_may_be_open_is_said_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stops: twenty thousand buyers of whom some thousand are refused by the kernel in the middle of the run."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1_024, 4_096))
    with pytest.raises(BadInput, match=r"ulimit -Hn 20256.*3,840 at most"):
        client.raise_files(20_000)
    assert waiters._buyers(None) == (3_840, waiters._buyers(None)[1]) and "4,096" in waiters._buyers(None)[1]
    assert waiters._buyers(7) == (7, "")


def test_a_figure_is_judged_by_the_median_of_its_rounds() -> None:
    """Stops: one good round, or one bad one, that speaks for all."""
    assert figure("lag", [10, 60, 40], "ms", most=50).met
    assert not figure("lag", [10, 60, 51], "ms", most=50).met
    assert not figure("rate", [4_000, 4_999, 9_000], "orders/s", least=5_000).met
    assert (figure("lag", [3, 1, 2], "ms").least, figure("lag", [3, 1, 2], "ms").greatest) == (1, 3)


def test_a_percentile_is_a_value_that_was_seen() -> None:
    """Stops: percentiles between two values, which nobody waited."""
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([7.0], 0.99) == 7.0 and percentile([], 0.5) == 0.0
