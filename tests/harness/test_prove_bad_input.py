"""What `prove` is asked wrongly: one line that says what to do, the code of its kind, and nothing half-written."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from core.__main__ import main
from loadtests.scenarios import NAMES


class Said(NamedTuple):
    """How it ended."""

    code: int
    line: str


Ask = Callable[..., Said]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A directory with an earlier run that `latest` points at."""
    (tmp_path / "out" / "prove" / "earlier").mkdir(parents=True)
    (tmp_path / "out" / "prove" / "latest").symlink_to("earlier")
    return tmp_path


@pytest.fixture
def ask(house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return what runs `prove` with bad options and gives its one line; everything else must be as it was."""
    monkeypatch.chdir(house)
    monkeypatch.setenv("FLASHPROOF_SANDBOX_SECRET", base64.b64encode(b"g" * 16).decode())
    monkeypatch.delenv("FLASHPROOF_SECRET", raising=False)

    def asked(*options: str) -> Said:
        before = sorted(str(path) for path in house.rglob("*"))
        code = main(["prove", *options])
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        assert sorted(str(path) for path in house.rglob("*")) == before
        assert (house / "out" / "prove" / "latest").readlink() == Path("earlier")
        return Said(code, err)

    return asked


def test_an_unknown_scenario_is_told_with_the_nearest_and_all_there_are(ask: Ask) -> None:
    said = ask("--scenario", "flash_sail")
    assert said.code == 64
    assert "Did you mean flash_sale?" in said.line
    assert all(name in said.line for name in NAMES)


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf"])
def test_a_rate_that_is_none_is_told_with_its_bounds(ask: Ask, rate: str) -> None:
    said = ask(f"--rate={rate}")
    assert said.code == 64
    assert "--rate must be from 1 to 50,000" in said.line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0.1\n0.2\nsoon\n", "line 3: 'soon' is no instant"),
        ("0.2\n0.1\n", "sort the trace"),
        ("0.1\n99\n", "cut the trace"),
        ("", "has no instants"),
        (None, "cannot be read"),
    ],
)
def test_a_broken_trace_is_told_with_its_line_and_what_to_write(
    ask: Ask, house: Path, text: str | None, says: str
) -> None:
    if text is not None:
        (house / "trace.txt").write_text(text)
    said = ask("--arrivals", "trace:trace.txt", "--seconds", "5")
    assert said.code == 64
    assert "--arrivals" in said.line
    assert says in said.line


def test_a_target_that_refuses_is_void_and_told_with_its_address(ask: Ask) -> None:
    said = ask("--target", "http://127.0.0.1:1")
    assert said.code == 3
    assert said.line.startswith("VOID: --target http://127.0.0.1:1: nobody listens there; start the shop")


@pytest.mark.parametrize("report", ["file/run", "/proc/flashproof/run", "file", "new/" + 300 * "x", 300 * "x"])
def test_a_directory_that_cannot_be_written_is_told_before_anything_starts(ask: Ask, house: Path, report: str) -> None:
    (house / "file").write_text("")
    said = ask("--report", report)
    assert said.code == 64
    assert f"--report {report}" in said.line
    assert "name a directory that can be written" in said.line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--target", "https://shop"), "--target must look like"),
        (("--target", "http://127.0.0.1:1", "--kill", "serve@1"), "--kill is for a shop of our own"),
        (("--target", "http://127.0.0.1:1", "--workers", "2"), "--workers is for a shop of our own"),
        (("--target", "http://127.0.0.1:1", "--scenario", "restock_race"), "choose another scenario"),
        (("--target", "http://127.0.0.1:1", "--valkey-url", "unix:///x"), "give --postgres-dsn too"),
        (("--target", "http://127.0.0.1:1", "--postgres-dsn", "postgresql://x"), "FLASHPROOF_SECRET must be"),
        (("--target", "http://127.0.0.1:1", "--adapter", "mine.py"), "write core, plain or the path"),
        (("--skus", "gold"), "give --target too"),
        (("--arrivals", "sometimes"), "write one of constant"),
        (("--master",), "--master needs --expect-workers"),
        (("--master", "--expect-workers", "0"), "--expect-workers must be from 1 to 64"),
        (("--master", "--expect-workers", "2"), "FLASHPROOF_SECRET must be set alike"),
        (("--master", "--expect-workers", "2", "--processes", "2"), "--processes is for the workers"),
        (
            ("--master", "--expect-workers", "2", "--web=48089", "--master-bind-port", "48089"),
            "--web and --master-bind-port are both 48089: give one of them another",
        ),
        (("--expect-workers", "2"), "give --master too"),
        (("--master-host", "127.0.0.1"), "give --worker too"),
        (("--worker",), "--worker needs --master-host"),
        (("--worker", "--master-host", "127.0.0.1", "--rate", "5"), "--rate is for the master to say"),
        (("--worker", "--master-host", "no such host"), "no host that is known here"),
        (("--worker", "--master-host", "127.0.0.1"), "FLASHPROOF_SECRET must be the master's own"),
        (("--rate", "many"), "argument --rate: invalid float value: 'many'; `flashproof prove --help` shows"),
        (("--speed", "5"), "unrecognized arguments: --speed 5; `flashproof prove --help` shows"),
        (("--scenario",), "argument --scenario: expected one argument; `flashproof prove --help` shows"),
    ],
)
def test_options_that_do_not_go_together_are_told_in_one_line(ask: Ask, options: tuple[str, ...], says: str) -> None:
    said = ask(*options)
    assert said.code == 64
    assert says in said.line


def test_a_run_that_is_interrupted_says_so_and_leaves_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops: Ctrl-C answered by nothing, beside a directory that looks like a run."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("loadtests.prove.run_sale", interrupted)
    assert main(["prove", "--ceiling", "0", "--report", str(tmp_path / "run")]) == 130
    assert "interrupted: nothing was judged" in capsys.readouterr().err
    assert not (tmp_path / "run" / "summary.json").exists()
