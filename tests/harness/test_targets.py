"""Any shop as a target: the adapter's words, a foreign shop through one file, a core that runs already."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from core.__main__ import main
from core.errors import BadInput
from loadtests import checkers
from loadtests.generator.contract import Reply
from loadtests.generator.plan import Crowd, without
from loadtests.record.history import read
from loadtests.shop.deployment import Deployment
from loadtests.shop.stage import set_stage
from loadtests.targets import LACKS, UNSEEN_WITHOUT, Notice, Target, load
from loadtests.targets.plain import PlainShop

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLE = ROOT / "examples" / "corner_shop.py"


class Run(NamedTuple):
    """How `prove` ended, and where."""

    report: Path
    code: int
    printed: str
    summary: dict[str, Any]


def prove(report: Path, *options: str, environment: dict[str, str] | None = None) -> Run:
    done = subprocess.run(
        [sys.executable, "-m", "core", "prove", *options, "--report", str(report)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
        env=os.environ | (environment or {}),
    )
    written = report / "summary.json"
    return Run(
        report, done.returncode, done.stdout + done.stderr, json.loads(written.read_text()) if written.exists() else {}
    )


def findings(run: Run) -> dict[str, bool | None]:
    return {one["name"]: one["holds"] for one in run.summary["invariants"]}


@contextmanager
def corner_shop(*options: str) -> Iterator[str]:
    command = [sys.executable, str(HERE / "corner_shop.py"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shop:
        assert shop.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(shop.stdout.readline())}"
        finally:
            shop.kill()


FOREIGN = ("--adapter", str(EXAMPLE), "--skus", "gift-10", "--rate", "150", "--seconds", "2", "--drain", "2")
NO_CEILING = ("--ceiling", "0")


@pytest.fixture(scope="module")
def corner_shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Run]]]:
    """Two foreign shops under load side by side: an honest one, and one that gives every card to two buyers."""

    def sold(name: str, manners: tuple[str, ...], *options: str) -> Run:
        with corner_shop("--stock", "80", *manners) as url:
            return prove(tmp_path_factory.mktemp(name) / "run", "--target", url, *FOREIGN, *options)

    with ThreadPoolExecutor(2) as pool:
        yield {
            "honest": pool.submit(sold, "honest", ()),
            "twice": pool.submit(sold, "twice", ("--same-card-twice",), *NO_CEILING),
        }


# --- a foreign shop -----------------------------------------------------------------------------------------


def test_a_foreign_shop_is_loaded_through_one_file_and_what_nobody_could_see_is_not_checked(
    corner_shops: dict[str, Future[Run]],
) -> None:
    """A pass for what was never looked at is the lie this harness is built against."""
    run = corner_shops["honest"].result()
    found = findings(run)
    assert {name for name, holds in found.items() if holds is not None} == checkers.FROM_HISTORY
    assert all(found[name] for name in checkers.FROM_HISTORY)
    assert "13 not checked" in run.printed
    assert sum("not checked" in line for line in run.summary["not_tested"]) == 13
    assert run.summary["non_vacuity"]["holds"], run.printed
    assert run.summary["orders"]["accepted"] == run.summary["identity"]["accepted"] > 40
    assert run.summary["keys"]["delivered"] > 40
    assert (run.report / "report.html").read_text().count("not checked</span>") == 13
    assert not (run.report / "postgres.json").exists()
    assert {a.outcome for a in read(run.report / "history.jsonl") if a.op == "place"} >= {"accepted", "sold_out"}


def test_a_foreign_shop_that_gives_one_card_to_two_buyers_is_found_without_its_stores(
    corner_shops: dict[str, Future[Run]],
) -> None:
    """The commonest fault of the trade shows in what buyers see."""
    run = corner_shops["twice"].result()
    assert run.code == 2, run.printed
    assert findings(run)["one_key_one_buyer"] is False
    assert run.summary["keys"]["duplicated"] > 10


# --- a core that runs already -------------------------------------------------------------------------------


def test_a_core_that_runs_already_is_judged_by_its_stores_read_only_and_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A deployment that is measured must not be touched, and another run's orders must not be taken for this one's."""
    with Deployment(tmp_path / "shop") as shop:
        shop.wait_ready()
        set_stage(shop.settings, 100, 1, lambda _: None, 1_500)
        settings = shop.settings
        secrets = {"FLASHPROOF_SECRET": settings.secret, "FLASHPROOF_SANDBOX_SECRET": settings.sandbox_secret}
        environment = {name: base64.b64encode(value).decode() for name, value in secrets.items()}
        options = ("--target", shop.url, "--skus", "hot,cold-000", "--rate", "120", "--seconds", "3", "--drain", "3")
        options += NO_CEILING
        stores = ("--postgres-dsn", settings.postgres_dsn, "--valkey-url", settings.valkey_url)
        run = prove(tmp_path / "run", *options, *stores, environment=environment)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        again = main(["prove", *options, *stores, "--report", str(tmp_path / "again")]), capsys.readouterr().err
        assert not shop.incidents
        monkeypatch.delenv("FLASHPROOF_SANDBOX_SECRET")
        blind = main(["prove", *options, "--report", str(tmp_path / "blind")]), capsys.readouterr().err
    assert all(findings(run).values()), run.printed
    assert run.summary["cost"]["server_cpu_us_per_order"] is None
    assert run.summary["orders"]["delivered"] > 30
    assert settings.postgres_dsn not in run.summary["command"]
    assert (again[0], again[1].count("\n")) == (64, 1)
    assert "orders already" in again[1]
    assert (blind[0], blind[1].count("\n")) == (64, 1)
    assert "FLASHPROOF_SANDBOX_SECRET" in blind[1]
    assert not (tmp_path / "again").exists()
    assert not (tmp_path / "blind").exists()


# --- adapters -----------------------------------------------------------------------------------------------


def whole(status: int, body: bytes) -> Reply:
    return Reply(1, 2, "", status, {}, body)


def test_the_plain_adapter_says_what_a_status_says_and_never_more() -> None:
    """A 500 read as a refusal would hide an order that exists."""
    shop = PlainShop("shop:80")
    placed = shop.read("place", whole(201, b'{"id": "A1", "amount": 500, "currency": "CNY"}'))
    assert (placed.result, placed.outcome) == ("ok", "accepted")
    assert placed.placed is not None and placed.placed.order_id == "A1"
    assert shop.read("place", whole(200, b'{"id": "A1"}')).outcome == "replayed"
    assert shop.read("place", whole(409, b'{"code": "sold_out"}')).result == "fail"
    assert shop.read("place", whole(409, b"no")).outcome == "http_409"
    assert shop.read("place", whole(500, b"{}")).result == "unknown"
    assert shop.read("place", whole(201, b"{}")).result == "unknown"
    for odd in (b'"abc"', b"[1]", b"1e999"):
        assert shop.read("place", whole(201, b'{"id": "A1", "quantity": ' + odd + b"}")).result == "unknown"
    assert shop.read("track", whole(200, b'{"state": "delivered", "keys": ["K"]}')).keys == ("K",)


def test_the_plain_adapter_sends_whole_requests() -> None:
    shop = PlainShop("shop:80")
    head, _, body = shop.place("key-1", "gold", "ann", 2).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /orders HTTP/1.1\r\nHost: shop:80\r\nIdempotency-Key: key-1\r\n")
    assert json.loads(body) == {"sku": "gold", "buyer": "ann", "quantity": 2}
    assert b"Content-Length: %d" % len(body) in head
    assert shop.track("a/b", "tok", 0).startswith(b"GET /orders/a%2Fb HTTP/1.1\r\n")
    assert b"/orders/A/pay" in shop.pay(Notice("e", "A", 5, "CNY", "paid", 0, 0))


@pytest.mark.parametrize("name", ["core", "plain", str(EXAMPLE)])
def test_every_adapter_has_the_six_functions(name: str) -> None:
    shop: Target = load(name, "127.0.0.1:1", b"s" * 16)
    assert shop.lacks <= LACKS
    for raw in (shop.browse(""), shop.browse("a"), shop.place("k", "a", "b", 1), shop.track("1", "t", 1)):
        assert raw.count(b"\r\n\r\n") == 1


def test_buyers_do_not_do_what_a_shop_lacks() -> None:
    """An adapter that lacks cancelling would be asked to cancel, and every answer counted against the shop."""
    crowd = Crowd(1, "hot", 5)
    for lacks in ({"replay"}, {"cancel"}, {"late"}, {"started"}, {"limit"}, LACKS):
        for number in range(500):
            plan = without(crowd.plan(number), frozenset(lacks))
            assert not ("replay" in lacks and (plan.again or plan.conflict))
            assert plan.ending not in lacks
            assert not ("started" in lacks and plan.callbacks == "started_after")
            assert not ("limit" in lacks and plan.why == "over_limit")
    assert set(UNSEEN_WITHOUT) == LACKS - {"wait"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def target(authority): return object()", "has no browse, place"),
        ("raise RuntimeError('broken')", "RuntimeError: broken"),
        ("", "has no attribute 'target'"),
        (None, "write core, plain or the path"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_told_in_one_line(text: str | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BadInput, match=says) as told:
        load(str(file), "127.0.0.1:1")
    assert "\n" not in str(told.value)
