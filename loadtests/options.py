"""The options of ``flashproof prove``: read and checked before anything is started or written."""

from __future__ import annotations

import argparse
import os
import shlex
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from core.errors import BadInput
from loadtests.faults import FAULTS
from loadtests.generator.arrivals import parse_arrivals
from loadtests.generator.scenario import Scenario
from loadtests.record.summary import Budgets
from loadtests.scenarios import NAMES, find
from loadtests.shop.kills import Kill, parse_kills

DRAIN_S: Final = 20.0
WEB_PORT: Final = 8089  # Locust's own default


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    scenario: Scenario
    arrivals: str
    rate: float
    seconds: float
    stock: int
    seed: int
    cold: int
    workers: int
    processes: int
    drain: float
    budgets: Budgets
    kills: tuple[Kill, ...]
    lane: str
    fault: str
    profile: bool
    web: int | None
    report: Path
    command: str


def read_options(argv: Sequence[str], says: str) -> Options:
    """Return the checked options; ``says`` is what ``--help`` tells.

    Raises:
        BadInput: one is out of bounds.
    """
    scenario, options = _parse(argv, says)
    bounds = (
        ("--rate", options.rate, 1, 50_000),
        ("--seconds", options.seconds, 1, 3_600),
        ("--seed", options.seed, 0, 2**31),
        ("--cold", options.cold, 0, 1_000),
        ("--workers", options.workers, 1, 64),
        ("--processes", options.processes, 1, 64),
        ("--drain", options.drain, 0, 600),
        ("--p99-ms", 1 if options.p99_ms is None else options.p99_ms, 0.001, 60_000),
    )
    for name, value, least, most in bounds:
        _within(name, value, least, most)
    if options.web is not None:
        _within("--web", options.web, 1, 65_535)
        _free_port(options.web)
    try:
        arrivals = parse_arrivals(options.arrivals, options.rate, options.seconds, options.seed)
    except ValueError as error:
        raise BadInput(f"--arrivals: {error}") from error
    stock = scenario.stage.stock(arrivals.total) if options.stock is None else options.stock
    _within("--stock", stock, 1, 1_000_000)
    if options.fault and options.fault not in FAULTS:
        raise BadInput(f"--fault: there are {', '.join(FAULTS)}")
    kills = parse_kills(options.kill or "")
    if options.kill is None:
        kills = tuple(Kill(what, round(at * options.seconds, 3)) for what, at in scenario.kills)
    if kills and kills[-1].at_s >= options.seconds:
        raise BadInput(
            f"--kill: {kills[-1].what}@{kills[-1].at_s:g} would come after the sale of {options.seconds:g} s"
        )
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{options.seed}-{os.getpid()}"
    return Options(
        scenario=scenario,
        arrivals=options.arrivals,
        rate=options.rate,
        seconds=options.seconds,
        stock=stock,
        seed=options.seed,
        cold=options.cold,
        workers=options.workers,
        processes=options.processes,
        drain=options.drain,
        budgets=_budgets(scenario.budgets, options.p99_ms, bool(kills)),
        kills=kills,
        lane=options.lane,
        fault=options.fault,
        profile=options.profile,
        web=options.web,
        report=options.report or Path("out/prove") / run_id,
        command=shlex.join(["flashproof", "prove", *argv]),
    )


def _parse(argv: Sequence[str], says: str) -> tuple[Scenario, argparse.Namespace]:
    """Return the scenario asked for, and all options with its defaults."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--scenario", default="flash_sale")
    scenario = find(first.parse_known_args(argv)[0].scenario)
    about, _, codes = says.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="flashproof prove", description=about, epilog=" ".join(codes.split()), allow_abbrev=False
    )
    add = parser.add_argument
    add("--scenario", metavar="NAME", default="flash_sale", help=f"one of {', '.join(NAMES)} (default flash_sale)")
    add("--arrivals", metavar="SPEC", default=scenario.arrivals, help=f"how they come (default {scenario.arrivals})")
    add("--rate", type=float, default=scenario.rate, help=f"attempts a second (default {scenario.rate:g})")
    seconds = f"how long buyers arrive (default {scenario.seconds:g})"
    add("--seconds", type=float, default=scenario.seconds, help=seconds)
    share = f"{scenario.stage.stock_share:g} of all attempts"
    add("--stock", type=int, help=f"keys of the hot SKU (default: {share})")
    add("--seed", type=int, default=1, help="the same seed gives the same crowd (default 1)")
    cold = scenario.stage.cold
    add("--cold", type=int, default=cold, help=f"how many other SKUs are on sale (default {cold})")
    add("--workers", type=int, default=1, help="worker processes of the server (default 1)")
    add("--processes", type=int, default=1, help="processes of the load generator, sharing the plan (default 1)")
    add("--lane", choices=("on", "off"), default="on", help="off: all through aiohttp, to compare (default on)")
    add("--drain", type=float, default=DRAIN_S, help="seconds the last buyers may go on afterwards (default 20)")
    add("--p99-ms", type=float, help="budget: accepted orders' p99 (default: the scenario's)")
    kills = "kill -9 while it runs, e.g. serve@4,work@7,valkey@10,postgres@13"
    add("--kill", metavar="PART@S,…", help=kills)
    add("--report", type=Path, metavar="DIR", help="where the run is written (default out/prove/<run id>)")
    add("--profile", action="store_true", help="also draw flame graphs of a server worker and the projector (py-spy)")
    web = f"watch it in Locust's web UI on this port of 127.0.0.1 ({WEB_PORT}); each look costs the generator time"
    add("--web", nargs="?", type=int, const=WEB_PORT, metavar="PORT", help=web)
    add("--fault", default="", help=argparse.SUPPRESS)
    return scenario, parser.parse_args(argv)


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # also refuses nan
        raise BadInput(f"{name} must be from {least:,} to {most:,}, not {value}")


def _free_port(port: int) -> None:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return
    except OSError as error:
        raise BadInput(f"--web: port {port} of 127.0.0.1 cannot be used ({error.strerror}); give another") from error


def _budgets(budgets: Budgets, p99_ms: float | None, killing: bool) -> Budgets:
    """Return the budgets that apply: the option's, the scenario's, or, where processes are killed, none of speed."""
    if killing:
        return Budgets(requests_per_arrival=budgets.requests_per_arrival, rss_growth_bytes=budgets.rss_growth_bytes)
    if p99_ms is None:
        return budgets
    return msgspec.structs.replace(budgets, accepted_p99_us=round(p99_ms * 1000))
